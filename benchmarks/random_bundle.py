"""A bundle in the default form for any base, with random numbers, for benchmarks that do not depend on them."""

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
    """A bundle that steers one middle layer, with a kernel gate and directions along the reply."""
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
        "gate": {"kind": "kernel", "shape": "step", "threshold": 0.5},
        "prompt_positions": "all",
        "reply_steps": steps,
        "landmarks": landmarks,
    }
    return bundle(base.identity, ({"requests": [request]}, tensors))
