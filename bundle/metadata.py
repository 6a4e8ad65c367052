"""What a bundle says of itself, and the names and shapes of its tensors. This needs no torch.

Everybody who reads or writes a bundle (:mod:`mllmeraser.bundle.bundle`) uses this one schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmeraser.errors import InputError

SCHEMA: Literal[1] = 1
METADATA_KEY = "mllmeraser"
REQUEST_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WeightFile(_Strict):
    """One file of a base's weights."""

    size: int = Field(ge=0)  # bytes
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Base(_Strict):
    """The base that the bundle was computed on; ``repo_id`` is null for a local directory.

    ``weights`` are its safetensors files by name; null if the bundle was not computed from the weights.
    """

    repo_id: str | None
    revision: str | None
    architecture: str
    model_type: str
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(ge=1)
    config_sha256: str
    weights: dict[str, WeightFile] | None = None


class LayerStatistics(_Strict):
    """The gate of one layer, on the records it was fitted on and on held-out records (null: nothing was held out).

    ``leakage`` is mean |g| on the retain set / mean g on the forget set.
    """

    auroc_train: float
    auroc_heldout: float | None
    forget_mean: float
    forget_std: float
    retain_mean: float
    retain_std: float
    leakage: float
    true_fire_heldout: float | None = None
    false_fire_heldout: float | None = None


DataSet = Literal["forget", "retain", "recall", "erasure"]


class Data(_Strict):
    """Which data was used: the commit of a repository on the Hub, or the sha256 of the files."""

    revision: str | None = Field(pattern=r"^[0-9a-f]{40}$")
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")


class RemovalRequest(_Strict):
    """One request: its counts, its switch, its strength λ, and the statistics of its gates by layer."""

    id: str = Field(pattern=REQUEST_ID)
    created: str
    n_forget: int
    n_retain: int
    strength: float
    enabled: bool = True
    statistics: dict[int, LayerStatistics]
    data: dict[DataSet, Data] = Field(default_factory=dict)  # empty: not known


class GateForm(_Strict):
    """How a gate is computed and shaped (φ of ``docs/method.md``); ``landmarks`` is null for a linear gate.

    Scope ``prompt``: the gate is read once, at the last prompt token; ``token``: each position reads its own.
    """

    kind: Literal["linear", "kernel"]
    shape: Literal["identity", "clip", "dead-zone", "step"]
    threshold: float | None
    landmarks: int | None = None
    scope: Literal["prompt", "token"] = "prompt"


class Method(_Strict):
    """The choices behind the numbers: enough to compute them again from the same records."""

    null_space: str
    ridge: float
    ridge_scale: Literal["absolute", "relative"]
    direction: str
    perturbation: str
    preset: str | None
    calibration: dict[str, float | int | str | bool | None] = Field(default_factory=dict)


class Metadata(_Strict):
    """The JSON object of the bundle (schema 1)."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    base: Base
    requests: list[RemovalRequest] = Field(min_length=1)
    layers: list[int] = Field(min_length=1)
    gate_layer: int | None
    strength: float
    gate: GateForm
    prompt_positions: Literal["all", "last"]
    reply_steps: int = Field(ge=1)
    method: Method
    template_sha256: str
    versions: dict[str, str]
    seed: int


def tensor_name(request: int, layer: int, leaf: str) -> str:
    """The name of a tensor in a bundle, for example ``requests.0.layers.5.direction``."""
    return f"requests.{request}.layers.{layer}.{leaf}"


def expected_shapes(metadata: Metadata) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a bundle with this metadata holds, by name."""
    d, gate = metadata.base.hidden_size, metadata.gate
    gate_layers = metadata.layers if metadata.gate_layer is None else [metadata.gate_layer]
    if gate.kind == "linear":
        leaves: dict[str, tuple[int, ...]] = {"gate": (d,)}
    else:
        leaves = {"landmarks": (gate.landmarks or 0, d), "weights": (gate.landmarks or 0,), "bandwidth": ()}
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(len(metadata.requests)):
        shapes |= {tensor_name(i, layer, "direction"): (metadata.reply_steps, d) for layer in metadata.layers}
        shapes |= {tensor_name(i, layer, leaf): shape for layer in gate_layers for leaf, shape in leaves.items()}
    return shapes


def request_entry(
    request_id: str,
    layers: Sequence[int],
    gate_layer: int | None,
    gate: GateForm,
    *,
    strength: float,
    prompt_positions: Literal["all", "last"],
    reply_steps: int,
    enabled: bool = True,
) -> dict[str, object]:
    """One entry of ``steering["requests"]`` in a checkpoint's ``config.json``."""
    return {
        "id": request_id,
        "enabled": enabled,
        "strength": strength,
        "layers": list(layers),
        "gate_layer": gate_layer,
        "gate": {"kind": gate.kind, "shape": gate.shape, "threshold": gate.threshold, "scope": gate.scope},
        "prompt_positions": prompt_positions,
        "reply_steps": reply_steps,
        "landmarks": gate.landmarks,
    }


def steering_requests(metadata: Metadata) -> list[dict[str, object]]:
    """``steering["requests"]`` in the ``config.json`` of a bundle's checkpoint."""
    return [
        request_entry(
            request.id,
            metadata.layers,
            metadata.gate_layer,
            metadata.gate,
            strength=request.strength,
            prompt_positions=metadata.prompt_positions,
            reply_steps=metadata.reply_steps,
            enabled=request.enabled,
        )
        for request in metadata.requests
    ]


def check_forms(metadata: Metadata, found: Mapping[str, tuple[str, tuple[int, ...]]], where: str) -> None:
    """Check that metadata and tensors fit each other.

    Args:
        found: dtype and shape of every tensor, by name.
        where: the bundle's name in messages.

    Raises:
        InputError: they do not fit.
    """
    layers, gate_layer = metadata.layers, metadata.gate_layer
    if layers != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= metadata.base.num_layers:
        raise InputError(f"{where}: layers {layers} are not ascending layer indices below {metadata.base.num_layers}")
    if gate_layer is not None and not 0 <= gate_layer <= layers[0]:
        raise InputError(f"{where}: gate_layer {gate_layer} must not lie after the first steered layer {layers[0]}")
    if metadata.gate.scope == "token" and (gate_layer is not None or metadata.reply_steps != 1):
        raise InputError(f"{where}: gates of scope 'token' are read at each layer, and have one direction there")
    if metadata.gate.shape in ("dead-zone", "step") and metadata.gate.threshold is None:
        raise InputError(f"{where}: a {metadata.gate.shape} gate needs a threshold")
    expected = expected_shapes(metadata)
    if wrong := sorted(set(expected) ^ set(found)):
        raise InputError(f"{where}: tensor {wrong[0]} is {'missing' if wrong[0] in expected else 'not expected'}")
    for name, shape in expected.items():
        if found[name] != ("float32", shape):
            dtype, given = found[name]
            raise InputError(f"{where}: tensor {name} is {dtype} {given}, expected float32 {shape}")


def parse_metadata(text: str, path: Path) -> Metadata:
    """The metadata of a bundle file.

    Raises:
        InputError: it is not of this schema.
    """
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: metadata key {key or METADATA_KEY}: {first['msg']}") from None
