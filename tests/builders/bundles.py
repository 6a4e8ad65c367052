"""The one writer of bundles for tests and benchmarks: a base, and one request as ``tiny.steering`` gives it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Base, GateForm, LayerStatistics, Metadata, Method, RemovalRequest

Part = tuple[dict[str, Any], dict[str, Tensor]]  # the `steering` of config.json, and the tensors of a bundle by name

STATISTICS = LayerStatistics(
    auroc_train=0.999,
    auroc_heldout=0.987,
    forget_mean=0.9,
    forget_std=0.1,
    retain_mean=0.01,
    retain_std=0.05,
    leakage=0.02,
    true_fire_heldout=0.95,
    false_fire_heldout=0.012,
)


def bundle(base: Base, part: Part, request_id: str = "r1") -> Bundle:
    """The bundle of one request, for this base; its statistics are made up."""
    section, tensors = part
    request = section["requests"][0]
    metadata = Metadata(
        base=base,
        requests=[
            RemovalRequest(
                id=request_id,
                created="2026-01-02",
                n_forget=12,
                n_retain=34,
                strength=request["strength"],
                enabled=request["enabled"],
                statistics=dict.fromkeys(request["layers"], STATISTICS),
            )
        ],
        layers=request["layers"],
        gate_layer=request["gate_layer"],
        strength=request["strength"],
        gate=GateForm(**request["gate"], landmarks=request["landmarks"]),
        edit=request["edit"],
        prompt_positions=request["prompt_positions"],
        reply_steps=request["reply_steps"],
        method=Method(
            null_space="soft:1",
            ridge=0.1,
            ridge_scale="relative",
            direction="matched",
            perturbation="none",
            preset=None,
        ),
        template_sha256="0" * 64,
        versions={"torch": "2.13.0"},
        seed=0,
    )
    return Bundle(metadata, {name: tensor.numpy().copy() for name, tensor in tensors.items()})
