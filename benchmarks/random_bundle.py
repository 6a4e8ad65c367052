"""A bundle of the default's form for any base, with random numbers: for what does not depend on them."""

from __future__ import annotations

from pathlib import Path

import torch

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Base, GateForm, LayerStatistics, Metadata, Method, RemovalRequest
from mllmeraser.exporter.base import read_base
from mllmeraser.inference.source import Source


def kernel_bundle(folder: Path, landmarks: int = 64, steps: int = 6) -> Bundle:
    """A bundle of the default's form, random: one middle block, kernel gate, directions along the reply."""
    base = read_base(Source(folder))
    d, layer = base.hidden_size, base.num_layers // 2
    statistics = LayerStatistics(
        auroc_train=1.0,
        auroc_heldout=1.0,
        forget_mean=1.0,
        forget_std=0.0,
        retain_mean=0.0,
        retain_std=0.0,
        leakage=0.0,
    )
    name = f"requests.0.layers.{layer}"
    tensors = {
        f"{name}.direction": torch.randn(steps, d),
        f"{name}.landmarks": torch.nn.functional.normalize(torch.randn(landmarks, d), dim=-1),
        f"{name}.weights": torch.randn(landmarks),
        f"{name}.bandwidth": torch.tensor(0.5),
    }
    request = RemovalRequest(
        id="r1",
        created="2026-01-01",
        n_forget=landmarks,
        n_retain=1000,
        strength=1.0,
        statistics={layer: statistics},
    )
    metadata = Metadata(
        base=Base(
            repo_id=None,
            revision=None,
            architecture=base.architecture,
            model_type=base.model_type,
            hidden_size=d,
            num_layers=base.num_layers,
            config_sha256=base.config_sha256,
        ),
        requests=[request],
        layers=[layer],
        gate_layer=None,
        strength=1.0,
        gate=GateForm(kind="kernel", shape="step", threshold=0.5, landmarks=landmarks),
        prompt_positions="all",
        reply_steps=steps,
        method=Method(
            null_space="ratio:0.3",
            ridge=0.1,
            ridge_scale="relative",
            direction="matched",
            perturbation="none",
            preset=None,
        ),
        template_sha256="0" * 64,
        versions={},
        seed=0,
    )
    return Bundle(metadata, {name: tensor.numpy() for name, tensor in tensors.items()})
