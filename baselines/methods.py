"""Makes a baseline: one call, from a base and records to an ordinary checkpoint on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mllmeraser.baselines import vectors
from mllmeraser.baselines.checkpoint import write_checkpoint
from mllmeraser.baselines.neurons import prune
from mllmeraser.baselines.recipes import Pruning, Recipe, Training, Words
from mllmeraser.baselines.training import train
from mllmeraser.baselines.words import instructed_template
from mllmeraser.bundle.bundle import Bundle
from mllmeraser.exporter.directory import check_output, export
from mllmeraser.inference.activations import last_prompt_states
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.source import Source
from mllmeraser.records.record import Record, refuse_overlap
from mllmeraser.steering.compute import compute


@dataclass(frozen=True)
class Baseline:
    """A baseline that was made: the method, its recipe, and the directory of the checkpoint."""

    name: str
    recipe: Recipe
    seed: int
    output: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    def description(self) -> dict[str, Any]:
        """The content of ``mllmeraser-baseline.json``: no path, and nothing of any record."""
        return {"baseline": self.name, "recipe": self.recipe.model_dump(), "seed": self.seed, **self.facts}

    def document(self) -> dict[str, Any]:
        """The JSON document of ``baseline --json`` (``docs/json.md``)."""
        return {"schema": 1, "output": str(self.output), **self.description()}

    def lines(self) -> list[str]:
        """The method and its choices, for a person."""
        values = self.recipe.model_dump(exclude_none=True, exclude={"text", "lora"}) | dict(self.facts)
        said = ", ".join(f"{key} {value}" for key, value in values.items())
        return [f"{self.output}: {self.name}, seed {self.seed}" + (f", {said}" if said else "")]


def make_baseline(
    name: str,
    recipe: Recipe,
    source: Source,
    forget: Sequence[Record],
    retain: Sequence[Record],
    output: Path,
    *,
    names: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
) -> Baseline:
    """Make the baseline ``name`` and write it to ``output``.

    Args:
        recipe: its choices (:func:`mllmeraser.baselines.recipes.recipe_of`).
        source: the base.
        names: the names of the people to forget, for the system prompt.
        seed: of everything random. The same seed gives the same bytes on the same machine.

    Raises:
        InputError: the base, the records, the recipe or the output cannot be used; nothing was written.
        MllmEraserError: the training diverged.
    """
    check_output(source, output, overwrite)
    refuse_overlap(forget, retain)
    made = Baseline(name, recipe, seed, output)
    checkpoint = load(source, device=device, dtype="float32")
    match recipe:
        case Training():
            trained = train(checkpoint, forget, retain, recipe, seed)
            write_checkpoint(source, output, trained.model, made.description(), overwrite=overwrite)
        case Pruning():
            neurons = prune(checkpoint, forget, retain, recipe.percent, recipe.batch_size)
            made = replace(made, facts={"neurons": neurons})
            write_checkpoint(source, output, checkpoint.model, made.description(), overwrite=overwrite)
        case Words():
            template = instructed_template(checkpoint.processor, recipe.text, names)
            files = {"chat_template.jinja": template.encode()}
            write_checkpoint(source, output, None, made.description(), files=files, overwrite=overwrite)
        case _:
            steered = compute(checkpoint, forget, retain, request_id=name, seed=seed).bundle
            bundle = variant(name, steered, checkpoint, forget, retain, seed)
            if recipe.strength is not None:
                bundle = vectors.with_strength(bundle, recipe.strength)
            made = replace(made, facts={"strength": bundle.metadata.strength})
            export(source, [bundle], output, overwrite=overwrite)
    return made


def variant(
    name: str, steered: Bundle, checkpoint: Checkpoint, forget: Sequence[Record], retain: Sequence[Record], seed: int
) -> Bundle:
    """The bundle with the part replaced that the steering baseline ``name`` tests (:mod:`.vectors`)."""
    if name == "constant-vector":
        return vectors.constant_vector(steered)
    if name == "random-vector":
        return vectors.random_vector(steered, seed)
    layer = vectors.gate_layer(steered)
    turns = [[record.user_turn for record in some] for some in (forget, retain)]
    ours, theirs = (last_prompt_states(checkpoint, prompts, [layer])[layer] for prompts in turns)
    return vectors.conditional_steering(steered, ours, theirs)
