"""What a bundle says of itself, and the names and shapes of its tensors. This needs no torch.

Everybody who reads or writes a bundle (:mod:`mllmeraser.bundle.bundle`) uses this one schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from mllmeraser.errors import InputError
from mllmeraser.modeling_patches.format_mllmeraser import (
    Request,
    SteeringError,
    bundle_name,
    check_tensors,
    expected_tensors,
    parse_requests,
    tensor_key,
)

SCHEMA: Literal[2] = 2
METADATA_KEY = "mllmeraser"
REQUEST_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

# A bundle comes from anybody, and its strings end up on a card and in the commands there. So each has a pattern: none
# allows a line break, or a sign that means something to a shell, to Markdown or to HTML.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}$")]
_Words = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.,:+/_ -]{0,255}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$")]
_Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
_Date = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WeightFile(_Strict):
    """One file of a base's weights."""

    size: int = Field(ge=0)  # bytes
    sha256: Sha256


class Base(_Strict):
    """The base that the bundle was computed on; ``repo_id`` is null for a local directory.

    ``weights`` are its safetensors files by name; null if the bundle was not computed from the weights.
    ``beside_sha256`` is of the settings, tokenizer and template beside them; null if nobody looked.
    """

    repo_id: _RepoId | None
    revision: _Revision | None
    architecture: _Name
    model_type: _Name
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(ge=1)
    config_sha256: Sha256
    weights: dict[_Name, WeightFile] | None = None
    beside_sha256: Sha256 | None = None


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
    """Which data was used, where it is on the Hub: the commit of its repository."""

    revision: str = Field(pattern=r"^[0-9a-f]{40}$")


class HeldOutScores(_Strict):
    """How far held-out conversations opened the gates of a request; by it a threshold can be raised without records.

    Of the ``retain`` records and of their ``variants`` the highest scores, descending: as many as the budget of false
    fires could ever allow, and one more. Of what is to be forgotten the percentiles, ascending.
    """

    retain: int = Field(ge=1)
    highest_of_retain: list[FiniteFloat] = Field(min_length=1)
    variants: int = Field(ge=0)
    highest_of_variants: list[FiniteFloat]
    forget_quantiles: list[FiniteFloat] = Field(min_length=1)


class RemovalRequest(_Strict):
    """One request: its counts, its switch, its strength λ, and the statistics of its gates by layer."""

    id: str = Field(pattern=REQUEST_ID)
    created: _Date
    n_forget: int
    n_retain: int
    strength: float
    enabled: bool = True
    statistics: dict[int, LayerStatistics]
    data: dict[DataSet, Data] = Field(default_factory=dict)  # what is not on the Hub has no entry
    held_out: HeldOutScores | None = None  # null: no threshold, or nothing was held out

    @model_validator(mode="before")
    @classmethod
    def _without_digests(cls, content: Any) -> Any:
        """Older bundles held the sha256 of files of records. Whoever guesses a name can make the file and compare."""
        data = content.get("data") if isinstance(content, dict) else None
        if not isinstance(data, dict):
            return content
        kept = {
            name: {key: value for key, value in entry.items() if key != "sha256"} if isinstance(entry, dict) else entry
            for name, entry in data.items()
            if not (isinstance(entry, dict) and entry.get("revision", "") is None)
        }
        return {**content, "data": kept}


Scope = Literal["conversation", "prompt", "token"]
Edit = Literal["seal", "add"]


class GateForm(_Strict):
    """How a gate is computed and shaped; ``modeling_patches/steering_mllmeraser.py`` has the equations.

    ``landmarks`` (J) is null for a linear gate; the first ``kept`` of them are of what must stay, where that is known.
    ``projection`` (p) is null where the gate reads the state itself.
    ``turn`` holds the tokens that begin a user's turn, where a seal ends; it is null where the seal lasts.
    """

    kind: Literal["linear", "kernel"]
    shape: Literal["identity", "clip", "dead-zone", "step"]
    threshold: float | None
    landmarks: int | None = None
    kept: Annotated[int, Field(ge=0)] | None = None
    scope: Scope = "prompt"
    projection: int | None = Field(default=None, ge=1)
    turn: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)


class Method(_Strict):
    """The choices behind the numbers: enough to compute them again from the same records."""

    null_space: _Words
    ridge: float
    ridge_scale: Literal["absolute", "relative"]
    direction: _Words
    perturbation: _Words
    preset: _Words | None
    calibration: dict[_Name, float | int | _Words | bool | None] = Field(default_factory=dict)


class Metadata(_Strict):
    """The JSON object of the bundle (schema 2; one of schema 1 is read as the prompt's scope and the edit ``add``)."""

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    base: Base
    requests: list[RemovalRequest] = Field(min_length=1)
    layers: list[int] = Field(min_length=1)
    gate_layer: int | None
    strength: float
    gate: GateForm
    edit: Edit = "add"
    prompt_positions: Literal["all", "last"]
    reply_steps: int = Field(ge=1)
    method: Method
    template_sha256: Sha256
    versions: dict[_Name, _Name]
    seed: int

    @model_validator(mode="before")
    @classmethod
    def _of_the_first_edition(cls, content: Any) -> Any:
        """Metadata of schema 1, whose gates are read at the prompt's end and push, says nothing of scope or edit."""
        if isinstance(content, dict) and content.get("schema") == 1:
            return {**content, "schema": SCHEMA}
        return content


def tensor_name(request: int, layer: int, leaf: str) -> str:
    """The name of a tensor in a bundle, for example ``requests.0.layers.5.states``."""
    return bundle_name((request, layer, leaf))


def expected_forms(metadata: Metadata) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype (``F32``, ``I8``) and shape of every tensor that a bundle with this metadata holds, by name."""
    forms = expected_tensors(parsed_requests(metadata, "the bundle"), metadata.base.hidden_size)
    return {bundle_name(key): form for key, form in forms.items()}


def request_entry(
    request_id: str,
    layers: Sequence[int],
    gate_layer: int | None,
    gate: GateForm,
    *,
    edit: Edit,
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
        "gate": gate.model_dump(exclude={"landmarks", "kept"}),
        "edit": edit,
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
            edit=metadata.edit,
            strength=request.strength,
            prompt_positions=metadata.prompt_positions,
            reply_steps=metadata.reply_steps,
            enabled=request.enabled,
        )
        for request in metadata.requests
    ]


def edited_tokens(scope: Scope, turns: bool, edit: Edit, prompt_positions: str, reply_steps: int) -> str:
    """Which tokens a request edits once its gate is open, in words; ``turns``: the seal ends with the turn."""
    if scope == "token":
        return "every token that opens the gate"
    if scope == "conversation":
        return f"every token of a {'turn' if turns else 'conversation'} that opens the gate"
    if edit == "seal":
        return "every token of prompt and reply"
    return f"{prompt_positions} of the prompt and {reply_steps - 1} positions of the reply"


def parsed_requests(metadata: Metadata, where: str) -> tuple[Request, ...]:
    """The requests as the shipped code reads them.

    Raises:
        InputError: a value does not fit another, or the number of layers.
    """
    steering = {"schema": SCHEMA, "requests": steering_requests(metadata)}
    try:
        return parse_requests(steering, metadata.base.num_layers, f"{where}: metadata")
    except SteeringError as error:
        raise InputError(str(error).replace("export again", "compute the bundle again")) from None


def check_forms(metadata: Metadata, found: Mapping[str, tuple[str, tuple[int, ...]]], where: str) -> None:
    """Check that metadata and tensors fit each other.

    Args:
        found: dtype (``F32``, ``I8``) and shape of every tensor, by name.
        where: the bundle's name in messages.

    Raises:
        InputError: they do not fit.
    """
    requests = parsed_requests(metadata, where)
    try:
        check_tensors({tensor_key(name): form for name, form in found.items()}, requests, metadata.base.hidden_size)
    except SteeringError as error:
        raise InputError(f"{where}: {error}".replace("export again", "compute the bundle again")) from None


def parse_metadata(text: str, path: Path) -> Metadata:
    """The metadata of a bundle file.

    Raises:
        InputError: it is not of this schema.
    """
    try:
        return Metadata.model_validate(json.loads(text))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise InputError(f"{path}: metadata key {METADATA_KEY}: not JSON; compute the bundle again") from None
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: metadata key {key or METADATA_KEY}: {first['msg']}") from None
