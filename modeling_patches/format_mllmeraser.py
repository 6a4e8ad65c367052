"""The format of a steered checkpoint: names, families, requests, shapes and the seal. It needs nothing but Python.

Whoever writes, checks or loads a checkpoint reads these facts here, with torch or without.

Parts: names · families · requests · tensors · seal.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = 2


class SteeringError(ValueError):
    """The steering cannot be applied, or is not what the configuration says; the message is one line."""


# ------------------------------------------------------------------------------------------------------------- names

# Nobody but the steered class looks for weights under these names: not the native class, whatever ``variant`` it is
# given, and no converter that takes ``model*``.
CONFIG, INDEX = "config.json", "mllmeraser.safetensors.index.json"
STEERING_FILE = "mllmeraser-steering.safetensors"
CODE = ("configuration_mllmeraser.py", "format_mllmeraser.py", "modeling_mllmeraser.py", "steering_mllmeraser.py")
MODEL_TYPE_PREFIX = "mllmeraser_"
# Files that lead transformers past what was sealed, wherever they lie; and what it does with them.
FOLLOWED = {
    "adapter_config.json": "follows it to another model",
    "custom_generate/generate.py": "runs it in place of generate",
}
SHARD = re.compile(r"mllmeraser-base-\d{5}-of-\d{5}\.safetensors")


def shard_names(shards: Iterable[str]) -> dict[str, str]:
    """The name in a checkpoint of each shard of a base, by the base's own name."""
    ordered = sorted(set(shards))
    return {
        name: f"mllmeraser-base-{number:05}-of-{len(ordered):05}.safetensors"
        for number, name in enumerate(ordered, start=1)
    }


def without_native_names(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """A configuration in which nothing nested names the native model; its own ``model_type`` is set by the caller.

    A native configuration class takes any nested dictionary with its ``model_type`` for its own, and converters look
    for ``architectures`` at any depth: they would take the model without the steering.
    """

    def cleaned(value: Any, top: bool) -> Any:
        if isinstance(value, list):
            return [cleaned(item, False) for item in value]
        if not isinstance(value, Mapping):
            return value
        return {
            key: cleaned(item, False)
            for key, item in value.items()
            if (key, item) != ("model_type", model_type) and (top or key != "architectures")
        }

    found: dict[str, Any] = cleaned(config, True)
    return found


# ---------------------------------------------------------------------------------------------------------- families


@dataclass(frozen=True)
class Family:
    """A family by its names. Its classes, of transformers and of ours, follow from them."""

    stem: str  # the part that the names of its classes share
    published_layers: str  # the decoder layers in a published checkpoint
    processor: str  # the class of its processor
    decoder: str = "model.language_model"  # the parent of the decoder layers in memory

    @property
    def native(self) -> str:
        """The class of transformers."""
        return f"{self.stem}ForConditionalGeneration"

    @property
    def steered(self) -> str:
        """The steered class."""
        return f"MllmEraser{self.native}"

    @property
    def steered_base(self) -> str:
        """The steered class without the head, which servers build by ``AutoModel``."""
        return f"MllmEraser{self.stem}Model"

    @property
    def configuration(self) -> str:
        """The class of the steered configuration."""
        return f"MllmEraser{self.stem}Config"


_LLAVA, _SMOL = "language_model.model.layers", "model.text_model.layers"
FAMILIES = {
    "llava": Family("Llava", _LLAVA, "LlavaProcessor"),
    "llava_next": Family("LlavaNext", _LLAVA, "LlavaNextProcessor"),
    "llava_onevision": Family("LlavaOnevision", _LLAVA, "LlavaOnevisionProcessor"),
    "qwen2_vl": Family("Qwen2VL", "model.layers", "Qwen2VLProcessor"),
    "qwen2_5_vl": Family("Qwen2_5_VL", "model.layers", "Qwen2_5_VLProcessor"),
    "qwen3_vl": Family("Qwen3VL", "model.language_model.layers", "Qwen3VLProcessor"),
    "internvl": Family("InternVL", _LLAVA, "InternVLProcessor"),
    "idefics3": Family("Idefics3", _SMOL, "Idefics3Processor", decoder="model.text_model"),
    "smolvlm": Family("SmolVLM", _SMOL, "SmolVLMProcessor", decoder="model.text_model"),
    "gemma3": Family("Gemma3", _LLAVA, "Gemma3Processor"),
    "mistral3": Family("Mistral3", _LLAVA, "PixtralProcessor"),
}


def family_of(model_type: str) -> Family:
    """The family of a base's ``model_type``, or of ours.

    Raises:
        SteeringError: the family is not supported.
    """
    family = FAMILIES.get(model_type.removeprefix(MODEL_TYPE_PREFIX))
    if family is None:
        raise SteeringError(f"model_type '{model_type}' is not supported; supported: {', '.join(sorted(FAMILIES))}")
    return family


# ---------------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True)
class Kept:
    """What several kernel gates at one layer share: the projection, and the landmarks of what must stay.

    ``config.steering["kept"][index]`` describes it; a request of such a gate says ``"kept": index``. Its weights are of
    these landmarks first, and then of its own.
    """

    index: int
    layer: int
    landmarks: int
    projection: int  # p; 0: the gates read the state itself

    @property
    def owner(self) -> int:
        """What stands in the place of a request in the keys of its tensors."""
        return -1 - self.index

    def shapes(self, hidden_size: int) -> dict[tuple[int, str], tuple[int, ...]]:
        """The shape of every tensor, by layer and leaf."""
        shapes: dict[tuple[int, str], tuple[int, ...]] = {
            (self.layer, "landmarks"): (self.landmarks, self.projection or hidden_size)
        }
        if self.projection:
            shapes[self.layer, "projection"] = (self.projection, hidden_size)
        return shapes


@dataclass(frozen=True)
class Request:
    """One removal request as ``config.steering["requests"][index]`` describes it."""

    index: int
    layers: tuple[int, ...]  # that are edited
    gate_layer: int | None  # whose gate the others share; None: each layer reads its own
    scope: str  # where the gate is read: conversation, prompt or token
    kind: str  # of the gate: linear or kernel
    shape: str  # of the gate: identity, clip, dead-zone or step
    threshold: float  # θ; 0 where the shape has none
    landmarks: int  # J; 0 for a linear gate
    projection: int  # p, the dimensions that the gate reads; 0: the state itself
    turn: tuple[int, ...]  # the tokens that begin a user's turn, where a seal ends; empty: it lasts
    edit: str  # what an open gate does: seal or add
    steps: int  # K
    all_positions: bool  # edit add in scope prompt: all columns of the prompt, or the last only
    kept: "Kept | None" = None  # what its gate shares with others'; None: all is its own

    def gate_of(self, layer: int) -> int:
        """The layer whose gate decides about an edited layer."""
        return layer if self.gate_layer is None else self.gate_layer

    def shapes(self, hidden_size: int) -> dict[tuple[int, str], tuple[int, ...]]:
        """The shape of every tensor of this request, by layer and leaf."""
        read = self.projection or hidden_size
        shared = 0 if self.kept is None else self.kept.landmarks
        if self.kind == "linear":
            gate: dict[str, tuple[int, ...]] = {"gate": (read,)}
        else:
            gate = {"landmarks": (self.landmarks - shared, read), "weights": (self.landmarks,), "bandwidth": ()}
        if self.projection and self.kept is None:
            gate["projection"] = (self.projection, hidden_size)
        leaf = "states" if self.edit == "seal" else "direction"
        shapes: dict[tuple[int, str], tuple[int, ...]] = {
            (layer, leaf): (self.steps, hidden_size) for layer in self.layers
        }
        for layer in self.layers if self.gate_layer is None else (self.gate_layer,):
            shapes |= {(layer, leaf): shape for leaf, shape in gate.items()}
        return shapes


def parse_requests(steering: Any, num_layers: int, where: str = "config.json: steering") -> tuple[Request, ...]:
    """Read and check ``config.steering``.

    Args:
        where: what the messages begin with.

    Raises:
        SteeringError: a key is missing or has a value that this code does not know.
    """
    if not isinstance(steering, dict) or steering.get("schema") != SCHEMA or not steering.get("requests"):
        raise SteeringError(f"{where} must hold schema {SCHEMA} and at least one request; export again")
    shared = _parse_kept(steering.get("kept", []), num_layers, f"{where}.kept")
    entries = enumerate(steering["requests"])
    return tuple(
        _parse_request(index, entry, num_layers, shared, f"{where}.requests[{index}]") for index, entry in entries
    )


def _parse_kept(entries: Any, num_layers: int, where: str) -> tuple[Kept, ...]:
    found = []
    for index, entry in enumerate(entries if isinstance(entries, list) else [None]):
        keys = ("layer", "landmarks", "projection")
        values = [value for key in keys if isinstance(entry, dict) and type(value := entry.get(key)) is int]
        if len(values) < len(keys) or not 0 <= values[0] < num_layers or values[1] < 1 or values[2] < 0:
            raise SteeringError(f"{where}[{index}]: not a value this version knows; export again")
        found.append(Kept(index, *values))
    return tuple(found)


def _parse_request(index: int, entry: dict[str, Any], num_layers: int, shared: tuple[Kept, ...], where: str) -> Request:
    try:
        kept = entry.get("kept")
        gate, strength, enabled, positions = (entry[key] for key in ("gate", "strength", "enabled", "prompt_positions"))
        threshold = gate["threshold"]
        request = Request(
            index=index,
            layers=tuple(entry["layers"]),
            gate_layer=entry["gate_layer"],
            scope=gate["scope"],
            kind=gate["kind"],
            shape=gate["shape"],
            threshold=threshold or 0.0,
            landmarks=entry["landmarks"] or 0,
            projection=gate["projection"] or 0,
            turn=tuple(gate.get("turn") or ()),
            edit=entry["edit"],
            steps=entry["reply_steps"],
            all_positions=positions == "all",
            kept=None if type(kept) is not int or not 0 <= kept < len(shared) else shared[kept],
        )
    except (KeyError, TypeError) as error:
        raise SteeringError(f"{where}: {error!r} is missing or of the wrong type; export again") from error
    layers = [*request.layers, *([] if request.gate_layer is None else [request.gate_layer])]
    thresholded = request.shape in ("dead-zone", "step")
    checks = {
        "layers": request.layers == tuple(sorted(set(request.layers)))
        and len(request.layers) > 0
        and all(type(layer) is int and 0 <= layer < num_layers for layer in layers),
        "gate_layer": request.gate_layer is None or request.gate_layer <= min(request.layers, default=-1),
        "gate.scope": request.scope in ("conversation", "prompt", "token"),
        "gate.kind": request.kind in ("linear", "kernel") and (request.kind == "linear") == (request.landmarks == 0),
        # A conversation is sealed or not: there is nothing between.
        "gate.shape": request.shape in ("identity", "clip", "dead-zone", "step")
        and (request.shape == "step" or request.scope != "conversation"),
        "gate.threshold": not thresholded or _is_finite(threshold),
        "gate.projection": type(request.projection) is int and request.projection >= 0,
        "gate.turn": (not request.turn or request.scope == "conversation")
        and all(type(token) is int and token >= 0 for token in request.turn),
        "landmarks": type(request.landmarks) is int and request.landmarks >= 0,
        "kept": kept is None if request.kept is None else _shares(request, request.kept),
        "edit": request.edit in ("seal", "add"),
        # A token knows no place in the reply.
        "reply_steps": type(request.steps) is int and 1 <= request.steps <= (1 if request.scope == "token" else 10_000),
        "prompt_positions": positions in ("all", "last"),
        "strength": _is_finite(strength),
        "enabled": isinstance(enabled, bool),
    }
    for key, fine in checks.items():
        if not fine:
            raise SteeringError(f"{where}.{key}: not a value this version knows; export again")
    return request


def _shares(request: Request, kept: Kept) -> bool:
    """Whether a request can share this: all its landmarks lie at one layer, and no column is read apart."""
    gates = {request.gate_of(layer) for layer in request.layers}
    fits = (gates, request.projection) == ({kept.layer}, kept.projection) and kept.landmarks < request.landmarks
    return fits and request.kind == "kernel" and request.scope != "prompt"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def strengths(enabled: Any, strength: Any, entries: list[dict[str, Any]]) -> tuple[float, ...]:
    """λ of each request: its own strength times the configuration's, or 0 where it or everything is switched off.

    Args:
        enabled: ``config.steering_enabled``.
        strength: ``config.steering_strength``.
        entries: ``config.steering["requests"]``.

    Raises:
        SteeringError: a switch is no boolean (``None``, 0 and "" are none), or a strength no finite number.
    """
    for what, switch in (
        ("steering_enabled", enabled),
        *((f"request {e['id']}: enabled", e["enabled"]) for e in entries),
    ):
        if not isinstance(switch, bool):
            raise SteeringError(f"{what} is {switch!r}; set True or False")
    for what, number in (
        ("steering_strength", strength),
        *((f"request {e['id']}: strength", e["strength"]) for e in entries),
    ):
        if not _is_finite(number):
            raise SteeringError(f"{what} is {number!r}; set a finite number")
    return tuple(strength * entry["strength"] if enabled and entry["enabled"] else 0.0 for entry in entries)


# ----------------------------------------------------------------------------------------------------------- tensors

TensorKey = tuple[int, int, str]  # (request, layer, leaf); in the place of a request −1 − i for what Kept i holds


def owner_name(owner: int) -> str:
    """The module of a request (``0``), or of what requests share (``kept0``), below a layer's ``steering``."""
    return str(owner) if owner >= 0 else f"kept{-1 - owner}"


def tensor_name(layers: str, key: TensorKey) -> str:
    """The name of a steering tensor below the decoder layers: ``{layers}.4.steering.0.states``."""
    owner, layer, leaf = key
    return f"{layers}.{layer}.steering.{owner_name(owner)}.{leaf}"


def bundle_name(key: TensorKey) -> str:
    """The name of a steering tensor in a bundle: ``requests.0.layers.4.states``."""
    owner, layer, leaf = key
    return f"requests.{owner_name(owner)}.layers.{layer}.{leaf}"


def tensor_key(name: str, layers: str | None = None) -> TensorKey:
    """The key of a steering tensor.

    Args:
        layers: the published name of the decoder layers; None: ``name`` is that of a bundle.

    Raises:
        SteeringError: it is no name of a steering tensor.
    """
    owner = r"(?P<kept>kept)?(?P<number>\d+)"
    if layers is None:
        pattern = rf"requests\.{owner}\.layers\.(?P<layer>\d+)\.(?P<leaf>\w+)"
    else:
        pattern = rf"{re.escape(layers)}\.(?P<layer>\d+)\.steering\.{owner}\.(?P<leaf>\w+)"
    match = re.fullmatch(pattern, name)
    if match is None:
        raise SteeringError(f"'{name}' is not a steering tensor of this model; export again")
    number = int(match["number"])
    return -1 - number if match["kept"] else number, int(match["layer"]), match["leaf"]


def dtype_of(leaf: str) -> str:
    """The dtype of a steering tensor, in the words of safetensors."""
    return "I8" if leaf == "projection" else "F32"


def expected_tensors(requests: tuple[Request, ...], hidden_size: int) -> dict[TensorKey, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every steering tensor."""
    of_kept = {request.kept.owner: request.kept for request in requests if request.kept is not None}
    owners: dict[int, Request | Kept] = {request.index: request for request in requests} | of_kept
    return {
        (owner, layer, leaf): (dtype_of(leaf), shape)
        for owner, of in owners.items()
        for (layer, leaf), shape in of.shapes(hidden_size).items()
    }


def check_tensors(
    found: Mapping[TensorKey, tuple[str, tuple[int, ...]]], requests: tuple[Request, ...], hidden_size: int
) -> None:
    """Names, dtypes and shapes against the configuration.

    Raises:
        SteeringError: a tensor is missing, left over, or of another dtype or shape.
    """
    wanted = expected_tensors(requests, hidden_size)
    for key in sorted(wanted.keys() | found.keys()):
        owner, layer, leaf = key
        name = f"steering tensor '{leaf}' of request {owner_name(owner)} at layer {layer}"
        if key not in found or key not in wanted:
            raise SteeringError(f"{name} is {'missing' if key in wanted else 'not expected'}; export again")
        if found[key] != wanted[key]:
            raise SteeringError(f"{name} is {_form(found[key])}, not {_form(wanted[key])}; export again")


def _form(form: tuple[str, tuple[int, ...]]) -> str:
    return f"{form[0]} {form[1]}"


# -------------------------------------------------------------------------------------------------------------- seal

# The seal is ``steering.seal`` of config.json: the sha256 of every file that must be the one it was written with, and
# of config.json itself, as it was parsed, without that one value and without the switches, which may be edited. One
# flipped bit could otherwise set a strength to 0 or move a threshold, and an un-erased model would load without a word.
# The steering file is named by ``steering.sha256``; the base's shards are not sealed: reading 14 GB twice takes long.


def as_json(value: object) -> bytes:
    """The JSON of every file of a checkpoint: sorted keys, two spaces, UTF-8, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _config_sha256(config: Mapping[str, Any]) -> str:
    """The sha256 of a parsed ``config.json``, without the switches and without the value that it is kept in."""

    def without_switch(entry: Mapping[str, Any], switch: str) -> dict[str, Any]:
        return {key: value for key, value in entry.items() if key != switch or not isinstance(value, bool)}

    steering = config["steering"]
    part = {
        **without_switch(config, "steering_enabled"),
        "steering": {
            **steering,
            "requests": [without_switch(request, "enabled") for request in steering["requests"]],
            "seal": {name: sha256 for name, sha256 in steering["seal"].items() if name != CONFIG},
        },
    }
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def with_seal(config: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """What ``config.json`` is written from: ``config``, sealed together with these files of its directory."""
    seal = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    sealed = {**config, "steering": {**config["steering"], "seal": seal}}
    seal[CONFIG] = _config_sha256(sealed)
    return sealed


def check_seal(config: bytes, read: Callable[[str], bytes]) -> tuple[str, ...]:
    """Compare a directory with its seal; returns the names of the sealed files.

    Args:
        config: the bytes of ``config.json``.
        read: gives the bytes of another file of the directory.

    Raises:
        SteeringError: there is no seal, or a file is not the one that was sealed.
    """
    mend = "fetch it again, or export again"
    try:
        parsed = json.loads(config)
        seal = parsed["steering"]["seal"]
        others = {name: sha256 for name, sha256 in seal.items() if name != CONFIG}
        found, sealed = _config_sha256(parsed), seal[CONFIG]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SteeringError(f"{CONFIG}: damaged, or of an old export: it holds no seal; {mend}") from error
    if found != sealed:
        strength = "to change a strength, give it to from_pretrained: steering_strength=0.5"
        raise SteeringError(f"{CONFIG}: changed since it was written; {mend}; {strength}")
    for name, sha256 in others.items():
        if Path(name).name != name:
            raise SteeringError(f"{CONFIG}: the seal names '{name}', which is not a file beside it; {mend}")
        if hashlib.sha256(read(name)).hexdigest() != sha256:
            raise SteeringError(f"{name}: changed since the checkpoint was written; {mend}")
    return (CONFIG, *others)
