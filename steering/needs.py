"""What a computation needs: records, layers, memory and disk. It is known before a model is loaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import AutoConfig

from mllmeraser.errors import MllmEraserError
from mllmeraser.inference.loading import available_bytes, needed_bytes, refuse_too_large
from mllmeraser.inference.source import Source, read_config
from mllmeraser.inference.usable import check_base
from mllmeraser.records.record import Record, subjects
from mllmeraser.steering.augment import variants
from mllmeraser.steering.checks import check_records
from mllmeraser.steering.layers import layers_of, recipe_on
from mllmeraser.steering.recipe import Recipe
from mllmeraser.steering.tokens import KEPT_POSITIONS

_STATE_BYTES = 4  # fp32


@dataclass(frozen=True)
class SetSize:
    """How much a set of records holds."""

    records: int
    subjects: int
    with_picture: int

    @classmethod
    def of(cls, records: Iterable[Record]) -> SetSize:
        """Count the records."""
        kept = list(records)
        return cls(len(kept), len(subjects(kept)), sum(record.image is not None for record in kept))


@dataclass(frozen=True)
class Needs:
    """The plan of a computation, what it needs and what there is; memory and disk in bytes."""

    model_type: str
    num_layers: int
    hidden_size: int
    forget: SetSize
    retain: SetSize
    gate_blocks: tuple[int, ...]  # layers whose gates are fitted
    moved_blocks: tuple[int, ...]  # layers that may be moved
    calibrated: tuple[str, ...]  # choices left to calibration
    memory: int  # the weights
    memory_available: int
    disk: int  # the retain states
    disk_free: int

    def document(self) -> dict[str, Any]:
        """The JSON document of ``compute --dry-run --json`` (``docs/json.md``)."""
        return {"schema": 1, **asdict(self)}

    def lines(self) -> list[str]:
        """The same, for a person."""
        return [
            f"base       {self.model_type}, {self.num_layers} layers of width {self.hidden_size}",
            *(
                f"{name:<10} {size.records} records of {size.subjects} subjects, {size.with_picture} with a picture"
                for name, size in (("forget", self.forget), ("retain", self.retain))
            ),
            f"gates      may be read at layers {_listed(self.gate_blocks)}",
            f"moved      may be layers {_listed(self.moved_blocks)}",
            f"calibrated {', '.join(self.calibrated) or 'nothing'}",
            f"memory     {self.memory:,} bytes for the weights, {self.memory_available:,} available",
            f"disk       {self.disk:,} bytes for states, {self.disk_free:,} free",
        ]

    def check(self) -> None:
        """Check that memory and disk suffice.

        Raises:
            MllmEraserError: one of them does not; the message holds the numbers.
        """
        refuse_too_large(self.memory, self.memory_available)
        if self.disk > self.disk_free:
            raise MllmEraserError(
                f"{tempfile.gettempdir()}: {self.disk:,} bytes are needed for states and {self.disk_free:,} are free; "
                "set TMPDIR to a larger disk"
            )


def needs(
    source: Source, forget: Sequence[Record], retain: Sequence[Record], recipe: Recipe, device: str, dtype: str
) -> Needs:
    """What a computation on these records needs.

    Raises:
        InputError: base, records and recipe do not fit each other, or one of them cannot be used.
    """
    check_base(source)
    check_records(forget, retain)
    model_type = str(read_config(source.path)["model_type"])
    config = AutoConfig.from_pretrained(source.path, local_files_only=True).get_text_config()
    recipe = recipe_on(recipe, config.num_hidden_layers)
    read, moved = layers_of(recipe, config.num_hidden_layers)
    rows = len(retain) * (1 + variants(len(retain)) if recipe.augment else 1)
    rows *= KEPT_POSITIONS if recipe.gate_scope != "prompt" else 1
    return Needs(
        model_type=model_type,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        forget=SetSize.of(forget),
        retain=SetSize.of(retain),
        gate_blocks=tuple(read),
        moved_blocks=tuple(moved),
        calibrated=recipe.left_open if recipe.calibration_share else (),
        memory=needed_bytes(source.path, dtype) if device == "cpu" else 0,
        memory_available=available_bytes(),
        disk=rows * config.hidden_size * _STATE_BYTES * len(read),
        disk_free=shutil.disk_usage(tempfile.gettempdir()).free,
    )


def _listed(layers: Sequence[int]) -> str:
    """A run of layers as "3–7", others as "3, 5, 7"."""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}–{layers[-1]}"
    return ", ".join(map(str, layers))
