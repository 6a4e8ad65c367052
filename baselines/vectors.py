"""Steering with one part replaced. Each variant is a bundle made from a bundle, so it exports as any other.

* :func:`constant_vector` keeps the directions, or states, and always applies them. A bundle has no constant gate, so
  its gate is a kernel gate whose only landmark is the origin and whose bandwidth m is so wide that g = exp(−2/m²) ≈ 1.
* :func:`random_vector` keeps the gate and draws random directions, or states, with the norms of the true ones.
* :func:`conditional_steering` keeps the directions, or states, and opens where the cosine of the hidden state and one
  *condition vector* reaches a threshold. This is conditional activation steering (Lee et al., arXiv 2409.05907). Their
  vector is a principal component of the states of both groups; ours is the difference of the groups' means. A kernel
  gate with one landmark c of norm 1 is a monotone function of the cosine: ‖ĥ − c‖² = 2 − 2 cos, so
  g = exp(−4(1 − cos)/m²).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import GateForm, tensor_name

Array = npt.NDArray[np.float32]
_WIDE = 1e6  # m²: exp(−2/m²) is 1 to six digits
_BANDWIDTH = 1.0
_EDITED = (".direction", ".states")  # what an open gate adds to a state, or sets it to


def gate_layer(bundle: Bundle) -> int:
    """The layer whose hidden state the gate reads: the shared gate's, else the first steered layer."""
    shared = bundle.metadata.gate_layer
    return bundle.metadata.layers[0] if shared is None else shared


def constant_vector(bundle: Bundle) -> Bundle:
    """The bundle with a gate that is always open."""
    origin = np.zeros(bundle.metadata.base.hidden_size, dtype=np.float32)
    return _with_gate(bundle, "constant-vector", origin, _WIDE, 0.5)


def conditional_steering(bundle: Bundle, forget: Tensor, retain: Tensor) -> Bundle:
    """The bundle with a gate that opens where cos(h, c) ≥ θ.

    c is :func:`condition_vector` and θ is :func:`best_threshold` of the states (n, d) of the layer :func:`gate_layer`.
    """
    condition = condition_vector(forget, retain)
    threshold = best_threshold(_cosines(forget, condition), _cosines(retain, condition))
    value = math.exp(-4 * (1 - threshold) / _BANDWIDTH)
    return _with_gate(bundle, "conditional-steering", condition.float().numpy(), _BANDWIDTH, value)


def random_vector(bundle: Bundle, seed: int) -> Bundle:
    """The bundle in which every direction r_{l,k} is ‖r_{l,k}‖ z/‖z‖, with z drawn from N(0, I)."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(bundle.tensors)
    for name in sorted(tensors):
        if name.endswith(_EDITED):
            direction = torch.from_numpy(tensors[name])
            drawn = torch.randn(direction.shape, generator=generator)
            drawn = drawn / drawn.norm(dim=-1, keepdim=True) * direction.norm(dim=-1, keepdim=True)
            tensors[name] = drawn.numpy()
    return _relabelled(bundle, "random-vector", tensors)


def with_strength(bundle: Bundle, strength: float) -> Bundle:
    """The bundle with another strength λ."""
    metadata = bundle.metadata.model_copy(deep=True, update={"strength": strength})
    for request in metadata.requests:
        request.strength = strength
    return Bundle(metadata, bundle.tensors)


def condition_vector(forget: Tensor, retain: Tensor) -> Tensor:
    """mean(ĥ | forget) − mean(ĥ | retain), scaled to norm 1, where ĥ = h/‖h‖; (d,), fp64."""
    ours, theirs = (_normed(states).mean(dim=0) for states in (forget, retain))
    return (ours - theirs) / (ours - theirs).norm()


def best_threshold(positive: Tensor, negative: Tensor) -> float:
    """The θ that maximises P(x⁺ ≥ θ) − P(x⁻ ≥ θ) (Youden's J): half-way between the best score and the next below."""
    scores = torch.cat([positive, negative]).unique()  # ascending
    gain = [float((positive >= s).double().mean() - (negative >= s).double().mean()) for s in scores]
    best = max(range(len(gain)), key=gain.__getitem__)
    return float(scores[best] if best == 0 else (scores[best - 1] + scores[best]) / 2)


def _cosines(states: Tensor, condition: Tensor) -> Tensor:
    return _normed(states) @ condition


def _normed(states: Tensor) -> Tensor:
    return states.double() / states.double().norm(dim=-1, keepdim=True)


def _with_gate(bundle: Bundle, name: str, landmark: Array, bandwidth: float, threshold: float) -> Bundle:
    """The bundle with one kernel gate for all layers: one landmark of weight 1, and a step at ``threshold``."""
    layer = gate_layer(bundle)
    tensors = {key: value for key, value in bundle.tensors.items() if key.endswith(_EDITED)}
    leaves = {
        "landmarks": landmark[None],
        "weights": np.ones(1, np.float32),
        "bandwidth": np.array(bandwidth, np.float32),
    }
    tensors |= {tensor_name(0, layer, leaf): value for leaf, value in leaves.items()}
    form = GateForm(kind="kernel", shape="step", threshold=threshold, landmarks=1)
    return _relabelled(bundle, name, tensors, {"gate": form, "gate_layer": layer})


def _relabelled(
    bundle: Bundle, name: str, tensors: dict[str, Array], update: Mapping[str, object] | None = None
) -> Bundle:
    """The bundle under a new name. Its statistics are dropped: they describe the part that was replaced."""
    metadata = bundle.metadata.model_copy(deep=True, update=dict(update or {}))
    for request in metadata.requests:
        request.id, request.statistics = name, {}
    return Bundle(metadata, tensors)
