"""Trains the trained baselines in one loop, with the order and the loss of the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mllmeraser.baselines.losses import (
    gradient_ascent,
    is_finite,
    mean_nll,
    npo,
    sequence_nll,
    token_kl,
)
from mllmeraser.baselines.order import Step, steps_of
from mllmeraser.baselines.recipes import Preference, Salient, Training
from mllmeraser.baselines.saliency import fisher, saliency_mask
from mllmeraser.console import track
from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.inference.adapters import adapted, merged
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.teaching import Batch, taught
from mllmeraser.records.record import Record


def train(
    checkpoint: Checkpoint, forget: Sequence[Record], retain: Sequence[Record], recipe: Training, seed: int
) -> Checkpoint:
    """The checkpoint after training. Its model is trained in place, in fp32; the same seed gives the same weights.

    Raises:
        InputError: the checkpoint is steered or not in fp32, or peft is missing.
        MllmEraserError: the training diverged: its loss is not finite.
    """
    if checkpoint.steered or checkpoint.model.dtype != torch.float32:
        raise InputError(f"{checkpoint.path}: a baseline is trained on a base, loaded in float32")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = checkpoint.model if recipe.lora is None else adapted(checkpoint.model, **recipe.lora.model_dump())
        steps = steps_of(
            recipe.order,
            [bool(record.image) for record in forget],
            [bool(record.image) for record in retain],
            recipe.epochs,
            recipe.batch_size,
            seed,
        )
        mask = None
        if isinstance(recipe, Salient):
            mask = _mask(checkpoint, forget, retain, steps, recipe.saliency_threshold)
        model.train()
        _run(checkpoint, model, forget, retain, recipe, steps, mask)
    return replace(checkpoint, model=(model if recipe.lora is None else merged(model)).eval())


def _run(
    checkpoint: Checkpoint,
    model: Any,
    forget: Sequence[Record],
    retain: Sequence[Record],
    recipe: Training,
    steps: Sequence[Step],
    mask: dict[str, Tensor] | None,
) -> None:
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / len(steps)))
    for step in track(steps, "training"):
        loss = torch.zeros((), device=checkpoint.model.device)
        if step.forget is not None:
            loss = loss + _forget_loss(model, taught(checkpoint, [forget[i] for i in step.forget]), recipe)
        if step.retain is not None:
            loss = loss + _retain_loss(model, taught(checkpoint, [retain[i] for i in step.retain]), recipe)
        if not is_finite(loss):
            raise MllmEraserError("the training diverged: its loss is not finite; use a lower --set learning_rate=…")
        optimizer.zero_grad()
        loss.backward()
        if recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(learnt, recipe.max_grad_norm)
        if mask is not None and step.forget is not None:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and name in mask:
                    parameter.grad *= mask[name]
        optimizer.step()
        schedule.step()


def _forget_loss(model: Any, batch: Batch, recipe: Training) -> Tensor:
    logits = _logits(model, batch)
    if not isinstance(recipe, Preference):
        return gradient_ascent(logits, batch.labels)
    nll = sequence_nll if recipe.objective == "npo" else mean_nll
    with frozen(model):
        base = nll(_logits(model, batch), batch.labels)
    return npo(nll(logits, batch.labels), base, recipe.beta)


def _retain_loss(model: Any, batch: Batch, recipe: Training) -> Tensor:
    logits = _logits(model, batch)
    if recipe.objective != "kl-min":
        return mean_nll(logits, batch.labels)
    with frozen(model):
        base = _logits(model, batch)
    return token_kl(logits, base, batch.labels)


def _logits(model: Any, batch: Batch) -> Tensor:
    return model(**batch.inputs, use_cache=False).logits


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """A context in which the adapter is disabled, so that the model is the base; no gradient is kept."""
    with torch.no_grad(), model.disable_adapter():
        yield


def _mask(
    checkpoint: Checkpoint,
    forget: Sequence[Record],
    retain: Sequence[Record],
    steps: Sequence[Step],
    threshold: float,
) -> dict[str, Tensor]:
    """MMUnlearner's mask, from the training's own batches."""
    ours = fisher(checkpoint.model, (taught(checkpoint, [forget[i] for i in s.forget]) for s in steps if s.forget))
    theirs = fisher(checkpoint.model, (taught(checkpoint, [retain[i] for i in s.retain]) for s in steps if s.retain))
    return saliency_mask(ours, theirs, threshold)
