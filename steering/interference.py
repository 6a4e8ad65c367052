"""How one request acts on the inputs of another: the gate of A on the forget set of B.

For every request A and every forget set B of n records:

    mean  = the mean of g_A, over the records and the layers at which A reads a gate
    opens = the share of records on which a gate of A opens at one layer at least

A gate opens at g ≥ its threshold, and at g ≥ 0.5 if its shape has none (identity, clip).

On the diagonal, ``opens`` says how well the request does its work. Off the diagonal, it says how often A also moves an
input that B was made for; the two deltas then add. At 0 neither notices the other.

Hidden states are those of the base: at the last prompt token for scope ``prompt``, and else at the prompt's token that
opens the gate furthest. This needs the records of each party; to merge or to drop a request needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.inference.activations import last_prompt_states
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record
from mllmeraser.steering.gate import gate_in
from mllmeraser.steering.tokens import furthest, no_replies

OPEN = 0.5  # for shapes without a threshold


@dataclass(frozen=True)
class Cell:
    """What the gates of one request say to one forget set of ``n`` records."""

    gate_of: str
    forget_set_of: str
    n: int
    mean: float
    opens: float


@dataclass(frozen=True)
class Interference:
    """One row per request, with one cell per forget set; both in the order given."""

    rows: tuple[tuple[Cell, ...], ...]

    def document(self) -> dict[str, Any]:
        """The JSON document of ``interference --json`` (``docs/json.md``)."""
        return {
            "schema": 1,
            "requests": [row[0].gate_of for row in self.rows],
            "cells": [vars(cell) for row in self.rows for cell in row],
        }

    def lines(self) -> list[str]:
        """The matrix, for a person."""
        sets = [cell.forget_set_of for cell in self.rows[0]]
        left = max(len("gate of"), *(len(row[0].gate_of) for row in self.rows))
        width = max(14, *(len(name) + 2 for name in sets))
        head = f"{'gate of':{left}}" + "".join(f"{name:>{width}}" for name in sets)
        body = [
            f"{row[0].gate_of:{left}}" + "".join(f"{f'{c.mean:.2f} {c.opens:6.1%}':>{width}}" for c in row)
            for row in self.rows
        ]
        return [head, *body, "", "mean of the gate, and share of the records on which it opens; columns: forget set of"]


def interference(
    checkpoint: Checkpoint, bundles: Sequence[Bundle], forget_sets: Sequence[Sequence[Record]]
) -> Interference:
    """Read the gates of every request on the forget set of every bundle.

    Args:
        checkpoint: the base that the bundles were computed on.
        forget_sets: one per bundle, in the same order.

    Raises:
        InputError: there are not as many sets as bundles, two requests have one id, the model is already steered, or a
            bundle belongs to another base.
    """
    if not bundles or len(bundles) != len(forget_sets):
        raise InputError("give one --forget for each --bundle, in the same order")
    if checkpoint.steered:
        raise InputError(f"{checkpoint.path}: already steered; give the base of the bundles")
    ids = [request.id for bundle in bundles for request in bundle.metadata.requests]
    if twice := next((id_ for id_ in ids if ids.count(id_) > 1), None):
        raise InputError(f"two requests have the id '{twice}'; compute one of them again with another --request-id")
    config_sha256 = sha256_of(checkpoint.path / "config.json")
    for bundle in bundles:
        if bundle.metadata.base.config_sha256 != config_sha256:
            raise InputError(
                f"the bundle of request '{bundle.metadata.requests[0].id}' does not fit {checkpoint.path}: another "
                "config.json; give the base it was computed on"
            )
    asked = [[record.user_turn for record in records] for records in forget_sets]
    rows = []
    for bundle in bundles:
        for index, request in enumerate(bundle.metadata.requests):
            values = [_gates(checkpoint, bundle, index, prompts) for prompts in asked]
            rows.append(
                tuple(
                    Cell(request.id, _name(of), g.shape[1], float(g.mean()), _opens(bundle, g))
                    for of, g in zip(bundles, values, strict=True)
                )
            )
    return Interference(tuple(rows))


def _name(bundle: Bundle) -> str:
    return "+".join(request.id for request in bundle.metadata.requests)


def _gate_layers(bundle: Bundle) -> list[int]:
    meta = bundle.metadata
    return meta.layers if meta.gate_layer is None else [meta.gate_layer]


def _gates(checkpoint: Checkpoint, bundle: Bundle, request: int, prompts: Sequence[Prompt]) -> Tensor:
    """g (layers, n), fp64, of a request at each layer it reads, on each prompt."""
    gates = {layer: gate_in(bundle, request, layer) for layer in _gate_layers(bundle)}
    if bundle.metadata.gate.scope == "prompt":
        states = last_prompt_states(checkpoint, prompts, list(gates))
        return torch.stack([gate(states[layer]) for layer, gate in gates.items()])
    read = furthest(checkpoint, prompts, no_replies(prompts), {layer: [[gate]] for layer, gate in gates.items()})
    return torch.cat([read[layer].T for layer in gates])


def _opens(bundle: Bundle, gates: Tensor) -> float:
    threshold = bundle.metadata.gate.threshold
    return float((gates >= (OPEN if threshold is None else threshold)).any(dim=0).double().mean())
