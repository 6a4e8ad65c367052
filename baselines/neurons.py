"""MANU: zero the MLP neurons that matter much more to the forget set than to the retain set (arXiv 2502.15910).

A neuron is one hidden unit of an MLP in the vision tower or the language model, that is, one input of the MLP's second
linear layer. Its activation z has four importances over all token positions of a set: mean |z|, the share of |z| > 0.1,
the standard deviation, and the root mean square. Its score is Σ_k I_k(forget) / (I_k(retain) + 1e-5). Records with a
picture and records without one each select the neurons with the highest scores, a fixed share of all scored neurons.
Both selections are zeroed.

The paper zeroes the top 2 % (and tries 1–5 %). The public code looks at the last three layers only, takes one output
feature of a linear layer at a time, and clamps activations. Here all layers count, and whole hidden units are zeroed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mllmeraser.errors import InputError
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.teaching import taught
from mllmeraser.records.record import Record

_ACTIVE = 0.1
_SMALLEST = 1e-5
_SECOND_LAYERS = ("down_proj", "fc2")  # of MLPs, in every family here


class Moments:
    """Sums over positions that give the four importances; each neuron is one column."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None  # (4, n), fp64: Σ z, Σ |z|, Σ [|z| > 0.1], Σ z²

    def add(self, activations: Tensor) -> None:
        """Add activations (…, n) of some positions."""
        z = activations.detach().flatten(0, -2).double()
        sums = torch.stack([z.sum(0), z.abs().sum(0), (z.abs() > _ACTIVE).double().sum(0), (z * z).sum(0)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += len(z)

    def importances(self) -> Tensor:
        """(4, n): mean |z|, frequency, standard deviation, root mean square."""
        assert self.sums is not None
        mean, absolute, active, square = self.sums / self.count
        return torch.stack([absolute, active, (square - mean**2).clamp(min=0).sqrt(), square.sqrt()])


def scores(forget: Tensor, retain: Tensor) -> Tensor:
    """Σ_k I_k(forget) / (I_k(retain) + 1e-5), (n,), from importances (4, n)."""
    return (forget / (retain + _SMALLEST)).sum(dim=0)


def top_share(by_layer: Mapping[str, Tensor], percent: float) -> dict[str, Tensor]:
    """Masks (n,) by layer of the neurons with the highest scores over all layers, at least one."""
    together = torch.cat(list(by_layer.values()))
    threshold = together.topk(max(1, int(percent / 100 * len(together)))).values[-1]
    return {name: values >= threshold for name, values in by_layer.items()}


@torch.no_grad()
def prune(
    checkpoint: Checkpoint, forget: Sequence[Record], retain: Sequence[Record], percent: float, batch_size: int
) -> int:
    """Zero the neurons in the checkpoint's own weights; returns their number.

    Raises:
        InputError: the sets have no modality in common, or the model has no MLP with known names.
    """
    layers = second_layers(checkpoint.model)
    chosen: dict[str, Tensor] = {}
    for with_picture in (True, False):
        ours, theirs = ([s for s in some if bool(s.image) is with_picture] for some in (forget, retain))
        if not ours or not theirs:
            continue
        found = [_importances(checkpoint, layers, some, batch_size) for some in (ours, theirs)]
        by_layer = {name: scores(found[0][name], found[1][name]) for name in found[0]}
        for name, mask in top_share(by_layer, percent).items():
            chosen[name] = chosen.get(name, torch.zeros_like(mask)) | mask
    if not chosen:
        raise InputError(
            "MANU compares records of one modality: give a forget set and a retain set that both have pictures, or "
            "both have records without"
        )
    for name, mask in chosen.items():
        layers[name].weight[:, mask] = 0
    return int(sum(mask.sum() for mask in chosen.values()))


def second_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The second linear layer of every MLP, by name.

    Raises:
        InputError: no layer has a known name.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in _SECOND_LAYERS
    }
    if not found:
        raise InputError(
            f"{type(model).__name__}: no MLP layer called {' or '.join(_SECOND_LAYERS)}; MANU cannot prune it"
        )
    return found


def _importances(
    checkpoint: Checkpoint, layers: Mapping[str, nn.Linear], records: Sequence[Record], batch_size: int
) -> dict[str, Tensor]:
    """The importances (4, n) of every layer that the records reach, over prompts and teacher-forced answers."""
    moments = {name: Moments() for name in layers}
    for start in range(0, len(records), batch_size):
        inputs, _ = taught(checkpoint, records[start : start + batch_size])
        real = inputs["attention_mask"].bool()
        with _reading(layers, moments, real):
            checkpoint.model(**inputs, use_cache=False, logits_to_keep=1)  # no logits are read
    return {name: seen.importances() for name, seen in moments.items() if seen.count}


@contextmanager
def _reading(layers: Mapping[str, nn.Linear], moments: Mapping[str, Moments], real: Tensor) -> Iterator[None]:
    """A context in which every forward pass adds each layer's input to ``moments``, without the padding of text."""

    def reader(name: str):  # type: ignore[no-untyped-def]  # a forward hook: torch's own signature
        def read(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            z = arguments[0]
            moments[name].add(z[real] if z.shape[:2] == real.shape else z)

        return read

    handles = [layer.register_forward_pre_hook(reader(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
