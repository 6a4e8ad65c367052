"""Bundles for any base, with random numbers, for benchmarks that do not depend on them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from builders.bundles import bundle

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.exporter.base import read_base
from mllmeraser.inference.source import Source


def kernel_bundle(folder: Path, landmarks: int = 64, steps: int = 6) -> Bundle:
    """A bundle of the paper's form: one middle layer, a kernel gate at the prompt's end, directions along the reply."""
    base = read_base(Source(folder))
    d, layer = base.hidden_size, base.num_layers // 2
    name = f"requests.0.layers.{layer}"
    tensors = {
        f"{name}.direction": torch.randn(steps, d),
        f"{name}.landmarks": torch.nn.functional.normalize(torch.randn(landmarks, d), dim=-1),
        f"{name}.weights": torch.randn(landmarks),
        f"{name}.bandwidth": torch.tensor(0.5),
    }
    request = {
        "enabled": True,
        "strength": 1.0,
        "layers": [layer],
        "gate_layer": None,
        "gate": {"kind": "kernel", "shape": "step", "threshold": 0.5, "scope": "prompt", "projection": None},
        "edit": "add",
        "prompt_positions": "all",
        "reply_steps": steps,
        "landmarks": landmarks,
    }
    return bundle(base.identity, ({"requests": [request]}, tensors))


def sealing_bundle(
    folder: Path,
    *,
    landmarks: int,
    projection: int | None,
    steps: int = 16,
    threshold: float = 0.5,
    kept: int | None = None,
) -> Bundle:
    """A bundle that reads a kernel gate at every column, and seals two layers, at three quarters of the depth.

    Args:
        folder: the base, of at least two layers.
        threshold: θ; infinite is no number of a configuration, but 1e9 never opens the gate, and -1e9 always does.
        kept: so many landmarks are of what must stay: the same in every bundle, as the projection is.
    """
    alike = torch.Generator().manual_seed(0)
    base = read_base(Source(folder))
    d, late = base.hidden_size, min(base.num_layers * 3 // 4, base.num_layers - 2)
    layers, gate_layer = (late, late + 1), min(base.num_layers // 3, late)
    gate = f"requests.0.layers.{gate_layer}"
    tensors = {f"requests.0.layers.{layer}.states": torch.randn(steps, d) for layer in layers}
    tensors |= {
        f"{gate}.landmarks": torch.nn.functional.normalize(torch.randn(landmarks, projection or d), dim=-1),
        f"{gate}.weights": torch.randn(landmarks),
        f"{gate}.bandwidth": torch.tensor(0.5),
    }
    if projection is not None:
        signs = torch.randint(0, 2, (projection, d), generator=None if kept is None else alike) * 2 - 1
        tensors[f"{gate}.projection"] = signs.to(torch.int8)
    if kept is not None:
        shared = torch.randn(kept, projection or d, generator=alike)
        tensors[f"{gate}.landmarks"][:kept] = torch.nn.functional.normalize(shared, dim=-1)
    form = {"kind": "kernel", "shape": "step", "threshold": threshold, "scope": "conversation"}
    request = {
        "enabled": True,
        "strength": 1.0,
        "layers": list(layers),
        "gate_layer": gate_layer,
        "gate": {**form, "projection": projection},
        "edit": "seal",
        "prompt_positions": "all",
        "reply_steps": steps,
        "landmarks": landmarks,
    }
    found = bundle(base.identity, ({"requests": [request]}, tensors))
    found.metadata.gate.kept = kept
    return found
