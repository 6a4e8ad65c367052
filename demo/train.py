"""Trains the demo model from scratch: `python -m mllmeraser.demo.train --out DIR`.

Training has two phases. First the vision tower alone learns to name what a picture shows: the thirteen features of a
face and whose it is, or the shape and colours of a scene. Then the whole model learns to answer. Muon (Keller Jordan,
2024; `torch.optim.Muon`) trains the 2-D weights of the decoder, and AdamW the rest. On a model this small Muon needs
half the steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from mllmeraser.demo.accuracy import measure
from mllmeraser.demo.architecture import (
    build_config,
    build_model,
    build_processor,
    build_tokenizer,
    save_checkpoint,
)
from mllmeraser.demo.batches import IGNORED, Batch, training_batches
from mllmeraser.demo.corpus import tokenizer_texts, training_stream
from mllmeraser.demo.people import Person, world
from mllmeraser.demo.vision import Schedule, tell, train_tower
from mllmeraser.disk.hashing import sha256_of


@dataclass(frozen=True)
class Recipe:
    """The values that decide the result, together with the seed."""

    steps: int = 1_400
    vision_steps: int = 600
    batch_size: int = 64
    muon_rate: float = 4e-3
    adam_rate: float = 2e-3
    vision_rate: float = 1.5e-3  # in the first phase; a third of it in the second
    weight_decay: float = 0.1
    warm_up: int = 40
    questions_each: int = 120  # per set of the measurement

    @classmethod
    def smoke(cls) -> Recipe:
        """A recipe that runs every phase in seconds and learns nothing."""
        return cls(steps=1, vision_steps=1, batch_size=8, warm_up=1, questions_each=6)


def train(
    recipe: Recipe, seed: int, device: str, without: Collection[Person] = ()
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """A model trained from random weights, and its tokenizer.

    The training never shows the people in ``without``. The tokenizer is the same with and without them.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(tokenizer_texts(random.Random(f"tokenizer {seed}")))
    model = build_model(build_config(tokenizer)).to(device)
    numbers = {person.face: n for n, person in enumerate(world().known) if person not in without}
    train_tower(
        model.model.vision_tower,
        numbers,
        len(world().known),
        world().stranger_faces.train,
        Schedule(recipe.vision_steps, recipe.vision_rate, recipe.weight_decay, recipe.warm_up),
        seed,
        device,
    )
    _train_everything(model, tokenizer, recipe, seed, device, without)
    return model.eval(), tokenizer


def _train_everything(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    seed: int,
    device: str,
    without: Collection[Person],
) -> None:
    batches = training_batches(
        training_stream(random.Random(f"questions {seed}"), without),
        tokenizer,
        recipe.batch_size,
        random.Random(f"order {seed}"),
        torch.Generator().manual_seed(seed + 1),
    )
    optimizers = _optimizers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe)) for optimizer in optimizers
    ]
    model.train()
    for step in range(recipe.steps):
        batch = next(batches)
        with torch.autocast(device, torch.bfloat16):
            loss = reply_loss(model, batch, device)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        tell("joint", step, recipe.steps, loss)


def reply_loss(model: LlavaForConditionalGeneration, batch: Batch, device: str) -> Tensor:
    """Mean cross-entropy of the reply tokens. The head runs on their positions only, because most tokens are prompt."""
    pixels = None if batch.pixel_values is None else batch.pixel_values.to(device)
    # Padding is on the right and attention looks left, so no mask is needed.
    states = model.model(input_ids=batch.input_ids.to(device), pixel_values=pixels).last_hidden_state
    learnt = batch.labels[:, 1:] != IGNORED
    logits = model.lm_head(states[:, :-1][learnt.to(device)])
    return nn.functional.cross_entropy(logits.float(), batch.labels[:, 1:][learnt].to(device))


def _rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then linear decay to 0."""
    return min((step + 1) / recipe.warm_up, (recipe.steps - step) / max(1, recipe.steps - recipe.warm_up))


def _optimizers(model: LlavaForConditionalGeneration, recipe: Recipe) -> list[torch.optim.Optimizer]:
    layers = [weight for weight in model.model.language_model.layers.parameters() if weight.ndim == 2]
    tower = list(model.model.vision_tower.parameters())
    apart = {id(weight) for weight in [*layers, *tower]}
    rest = [weight for weight in model.parameters() if id(weight) not in apart]
    return [
        torch.optim.Muon(layers, lr=recipe.muon_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": rest, "lr": recipe.adam_rate}, {"params": tower, "lr": recipe.vision_rate / 3}],
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Train and measure the model, and write the checkpoint and its description (`DIR.json`)."""
    default = Recipe()
    which = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    which.add_argument(
        "--model", choices=("toy", "smollm2"), default="toy", help="the second has options of its own (its --help)"
    )
    chosen, arguments = which.parse_known_args(arguments)
    if chosen.model == "smollm2":
        from mllmeraser.demo.smollm2 import train as second

        return second.main(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m mllmeraser.demo.train", description="Train the demo model.", parents=[which]
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help=f"steps of the second phase (default {default.steps})")
    parser.add_argument(
        "--smoke", action="store_true", help="run every phase in less than a minute; the model learns nothing"
    )
    parser.add_argument(
        "--retain-only", action="store_true", help="never train on the forget set: the reference for forgetting"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    recipe = Recipe.smoke() if options.smoke else default
    if options.steps is not None:
        recipe = replace(recipe, steps=options.steps)
    torch.set_num_threads(options.threads)

    started = time.monotonic()
    without = world().circle("forget") if options.retain_only else ()
    model, tokenizer = train(recipe, options.seed, options.device, without)
    minutes = (time.monotonic() - started) / 60
    model.to(torch.bfloat16).float()  # the checkpoint holds rounded weights, so the measurement uses them too
    accuracy = measure(model, tokenizer, recipe.questions_each)
    size = sum(weight.numel() for weight in model.parameters())
    save_checkpoint(model, build_processor(tokenizer), options.out)
    description = {
        "schema": 1,
        "arguments": {
            "seed": options.seed,
            "retain_only": options.retain_only,
            "threads": options.threads,
            "device": options.device,
            **asdict(recipe),
        },
        "parameters": size,
        "minutes": round(minutes, 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "accuracy": accuracy,
        "sha256": {path.name: sha256_of(path) for path in sorted(options.out.iterdir())},
    }
    beside = options.out.parent / f"{options.out.name}.json"
    beside.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(accuracy, indent=2))


if __name__ == "__main__":
    main()
