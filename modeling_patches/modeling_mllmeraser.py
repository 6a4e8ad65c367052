"""A multimodal model whose decoder layers suppress what somebody asked to be forgotten (MLLMEraser, arXiv 2510.04217).

For every steered decoder block l and removal request i, with h the output of that block (before any steering there),
P the number of prompt columns and all arithmetic of the gate and of the delta in fp32:

    g  = uᵀ h_last                                  linear gate, u (d,)
    g  = Σ_j w_j exp(−2 ‖ĥ_last − c_j‖² / m²)       kernel gate, ĥ = h/‖h‖, c (J, d), w (J,), bandwidth m²
    h ← h + λ φ(g) r_0      on the prompt: the last real token, or all columns < P
    h ← h + λ φ(g) r_k      on the column P − 1 + k of the reply, 1 ≤ k < K

``h_last`` is the state at the last real prompt token of each row; the gate is read there once, and kept per row beside
the cache while the reply is decoded. A request may share one gate, read at an earlier block. λ is the request's
strength times ``config.steering_strength``; φ is ``identity``, ``clip`` (to [0, 1]), ``dead-zone`` (0 below a
threshold) or ``step`` (0 or 1). The deltas of several requests add. Where λ φ(g) is 0 the state is not touched, so an
input that no gate fires on gives the base model's output bit for bit. The base weights are never changed.

With ``gate.scope`` ``token`` the gate is not read once: every position, of prompt and reply alike, is moved by the gate
of its own state,

    h_t ← h_t + λ φ(g(h_t)) r_0      at every position t of a steered block

so nothing is kept, and what was computed in chunks, from a prefix cache, packed or in a continuous batch is what one
forward gives. Servers that build the base model by ``AutoModel`` and run it their own way (vLLM) need this scope.

Which columns are prompt: in ``generate`` the prompt it was called with. In a plain ``forward`` on an empty cache the
whole input, unless ``labels`` (its −100 prefix) or ``steering_prompt_length`` (per row, the column of the first reply
token) say where the reply starts, as for scoring an answer. A new turn on a used cache is gated by its own last token.
What cannot be placed (4-D masks, packing, chunked prefill, continuous batching) raises a :class:`SteeringError`.

Loading is strict: every file but the base's shards must be what the seal in ``config.json`` says, the steering file
must have the sha256, names and shapes in ``config.steering``, and every weight must be found; anything else raises, so
that no un-erased model is ever returned by accident. This is suppression at inference: the knowledge stays in the
weights, and whoever holds the files can switch it off.

A *thin* checkpoint holds no weights but the steering: ``config.steering["base"]`` names the base on the Hub, its 40-hex
revision, and the bytes and sha256 of its files. They are found in the Hub's cache or fetched into it, as transformers
would, and are compared before they are loaded.

Parts: requests · plan (what a forward has to move) · modules · seal · steering file · the base of a thin checkpoint ·
the mixin · base models · families.
"""

import copy
import functools
import hashlib
import inspect
import json
import math
import re
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import (
    MODEL_MAPPING,
    Gemma3ForConditionalGeneration,
    GenerationMixin,
    Idefics3ForConditionalGeneration,
    InternVLForConditionalGeneration,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    Mistral3ForConditionalGeneration,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
    SmolVLMForConditionalGeneration,
)
from transformers.cache_utils import Cache
from transformers.utils import cached_file

from .configuration_mllmeraser import (
    MllmEraserGemma3Config,
    MllmEraserIdefics3Config,
    MllmEraserInternVLConfig,
    MllmEraserLlavaConfig,
    MllmEraserLlavaNextConfig,
    MllmEraserLlavaOnevisionConfig,
    MllmEraserMistral3Config,
    MllmEraserQwen2_5_VLConfig,
    MllmEraserQwen2VLConfig,
    MllmEraserQwen3VLConfig,
    MllmEraserSmolVLMConfig,
)

try:
    from transformers import conversion_mapping
except ImportError:  # transformers 4.57
    conversion_mapping = None

SCHEMA = 1
STEERING_FILE = "mllmeraser-steering.safetensors"
# The weight map lies in a variant index, so that the native class, which looks for the default one, finds no weights.
VARIANT = "mllmeraser"
CONFIG, INDEX = "config.json", f"model.safetensors.index.{VARIANT}.json"
CODE = ("configuration_mllmeraser.py", "modeling_mllmeraser.py")


class SteeringError(ValueError):
    """The steering cannot be applied, or is not what the configuration says; the message is one line."""


# ---------------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True)
class Request:
    """One removal request as ``config.steering["requests"][index]`` describes it."""

    index: int
    layers: tuple[int, ...]  # blocks that are moved
    gate_layer: int | None  # the block whose gate the others share; None: every block reads its own
    kind: str
    shape: str
    threshold: float  # 0 where the shape has none
    all_positions: bool
    steps: int  # K
    landmarks: int  # J; 0 for a linear gate
    per_token: bool  # every position is moved by its own gate

    def gate_layer_of(self, layer: int) -> int:
        return layer if self.gate_layer is None else self.gate_layer

    def tensors(self, hidden_size: int) -> dict[tuple[int, str], tuple[int, ...]]:
        """Shape of every tensor of this request, by (block, leaf)."""
        if self.kind == "linear":
            gate: dict[str, tuple[int, ...]] = {"gate": (hidden_size,)}
        else:
            gate = {"landmarks": (self.landmarks, hidden_size), "weights": (self.landmarks,), "bandwidth": ()}
        directions = [(layer, "direction") for layer in self.layers]
        shapes: dict[tuple[int, str], tuple[int, ...]] = dict.fromkeys(directions, (self.steps, hidden_size))
        for layer in self.layers if self.gate_layer is None else (self.gate_layer,):
            shapes |= {(layer, leaf): shape for leaf, shape in gate.items()}
        return shapes


def parse_requests(steering: dict[str, Any] | None, num_layers: int) -> tuple[Request, ...]:
    """Read and check ``config.steering``.

    Raises:
        SteeringError: a key is missing or has a value this code does not know.
    """
    if not isinstance(steering, dict) or steering.get("schema") != SCHEMA or not steering.get("requests"):
        raise SteeringError(f"config.json: 'steering' must hold schema {SCHEMA} and at least one request; export again")
    requests = tuple(_parse_request(index, entry, num_layers) for index, entry in enumerate(steering["requests"]))
    if len({request.per_token for request in requests}) > 1:
        raise SteeringError("config.json: gates of scope 'prompt' and 'token' stand together; export them apart")
    return requests


def strengths(config: Any) -> tuple[float, ...]:
    """λ of each request as the configuration stands now; it may be changed on a loaded model."""
    on = config.steering_strength if config.steering_enabled else 0.0
    return tuple(on * entry["strength"] if entry["enabled"] else 0.0 for entry in config.steering["requests"])


def _parse_request(index: int, entry: dict[str, Any], num_layers: int) -> Request:
    where = f"config.json: steering.requests[{index}]"
    try:
        gate = entry["gate"]
        request = Request(
            index=index,
            layers=tuple(entry["layers"]),
            gate_layer=entry["gate_layer"],
            kind=gate["kind"],
            shape=gate["shape"],
            threshold=gate["threshold"] or 0.0,
            all_positions=entry["prompt_positions"] == "all",
            steps=entry["reply_steps"],
            landmarks=entry["landmarks"] or 0,
            per_token=gate.get("scope", "prompt") == "token",  # without: an export of before there were two
        )
        strength, enabled, positions = entry["strength"], entry["enabled"], entry["prompt_positions"]
        threshold = gate["threshold"]
    except (KeyError, TypeError) as error:
        raise SteeringError(f"{where}: {error!r} is missing or of the wrong type; export again") from error
    blocks = [*request.layers, *([] if request.gate_layer is None else [request.gate_layer])]
    checks = {
        "layers": request.layers == tuple(sorted(set(request.layers)))
        and len(request.layers) > 0
        and all(type(block) is int and 0 <= block < num_layers for block in blocks),
        "gate_layer": request.gate_layer is None or request.gate_layer <= min(request.layers, default=-1),
        "gate.kind": request.kind in ("linear", "kernel") and (request.kind == "linear") == (request.landmarks == 0),
        "gate.shape": request.shape in ("identity", "clip", "dead-zone", "step"),
        "gate.scope": gate.get("scope", "prompt") in ("prompt", "token")
        and (not request.per_token or (request.gate_layer is None and request.steps == 1)),
        "gate.threshold": request.shape in ("identity", "clip")
        or (isinstance(threshold, int | float) and math.isfinite(threshold)),
        "prompt_positions": positions in ("all", "last"),
        "reply_steps": type(request.steps) is int and request.steps >= 1,
        "strength": isinstance(strength, int | float) and math.isfinite(strength),
        "enabled": isinstance(enabled, bool),
    }
    for key, fine in checks.items():
        if not fine:
            raise SteeringError(f"{where}.{key}: not a value this version knows; export again")
    return request


# -------------------------------------------------------------------------------------------------------------- plan


@dataclass
class KeptGates:
    """What the prefill leaves beside the cache for the reply: P of each row, and φ(g) by (request, gate block)."""

    ends: tuple[int, ...]
    gates: dict[tuple[int, int], Tensor]  # each (b,) fp32


@dataclass
class Plan:
    """What one forward over ``s`` columns has to move; made once above the layers and handed to each of them."""

    scales: tuple[float, ...]  # λ of each request; 0 when it is off
    reads: bool  # the prompt's end lies in these columns: gates are read here
    step: Tensor  # (b, s) column − (P − 1): ≤ 0 prompt, k > 0 the k-th reply column
    last: Tensor  # (b,) index here of the last real prompt token
    seen: Tensor  # (b,) whether there is such a token; a row without one is not moved
    kept: KeptGates


# Where a cache carries its KeptGates: an attribute travels with copy.deepcopy and dies with the cache.
_KEPT = "mllmeraser_kept_gates"
_PLAN = "steering_plan"
_CACHE_NAMES = ("cache", "past_key_values")  # the argument's name from transformers 5.24, and before


@dataclass
class _Generation:
    """One call of ``generate``: the number of prompt columns, and whether its first forward has been prepared."""

    prompt_end: int
    started: bool = False


_generation: ContextVar[_Generation | None] = ContextVar("mllmeraser_generation", default=None)


@dataclass
class Columns:
    """The columns [past, past + size) of a forward, of ``batch`` rows."""

    batch: int
    size: int
    past: int  # columns already in the cache
    kept: KeptGates | None  # what the cache carries
    device: torch.device

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> "Columns":
        """Read from the arguments of ``forward``."""
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        given = ids if embeds is None else embeds
        if given is None:
            raise SteeringError("pass input_ids or inputs_embeds")
        cache = next((arguments[name] for name in _CACHE_NAMES if arguments.get(name) is not None), None)
        if cache is not None and not isinstance(cache, Cache):
            raise SteeringError(f"the cache is a {type(cache).__name__}; pass a transformers Cache object")
        past, position = 0 if cache is None else int(cache.get_seq_length()), arguments.get("cache_position")
        if position is not None:  # transformers 4.57, whose static cache undercounts left-padded keys
            past = int(position[0])
        kept = None if cache is None else vars(cache).get(_KEPT)
        return cls(given.shape[0], given.shape[1], past, kept, given.device)


def _ends_by_rule(columns: Columns) -> list[int] | None:
    """P of each row in a plain forward that does not say it; None: a reply column, and nobody kept a gate."""
    if columns.past == 0:
        return [columns.size] * columns.batch
    if columns.size > 1:
        raise SteeringError(
            "several new columns on a used cache may be prompt or reply; use generate, or pass steering_prompt_length "
            "(per row, the column of the first reply token)"
        )
    if columns.kept is None:
        return None
    if max(columns.kept.ends) > columns.past:
        raise SteeringError("the cache was cut back into the prompt; run the prompt again")
    return list(columns.kept.ends)


def make_plan(
    columns: Columns, scales: tuple[float, ...], steps: int, ends: list[int] | None, mask: Any, starting: bool = False
) -> Plan | None:
    """What a forward over these columns has to move; None: nothing.

    Args:
        steps: the largest K of the requests that are on.
        ends: P of each row, cached columns included; None: not known, the rule of a plain forward applies.
        mask: the attention mask of all columns, cached ones included; None: every token is real.
        starting: the first forward of ``generate``, which must hold the prompt's end.

    Raises:
        SteeringError: it cannot be told which token decides, or which columns are the prompt.
    """
    ends = _ends_by_rule(columns) if ends is None else ends
    no_gate = "the cache holds no gates of these rows; run the prompt through this model first"
    if ends is None:
        if steps > 1:
            raise SteeringError(no_gate)
        return None
    if len(ends) != columns.batch:
        raise SteeringError(no_gate)
    if min(ends) < 1:
        raise SteeringError(
            "the first column is marked as reply: set the labels of the prompt to -100, or pass steering_prompt_length"
        )
    if max(ends) > columns.past + columns.size:
        raise SteeringError("the prompt's end lies beyond these columns; a prompt cannot be prefilled in chunks")
    reads = max(ends) > columns.past
    if reads and min(ends) <= columns.past:
        raise SteeringError("the prompt's end lies here for some rows and in the cache for others; split the batch")
    if starting and not reads:
        raise SteeringError("the cache already holds the whole prompt; give generate at least one new token")
    if not reads and columns.past - max(ends) + 1 >= steps:
        return None
    here = torch.arange(columns.past, columns.past + columns.size, device=columns.device)
    step = here - torch.tensor(ends, device=columns.device).unsqueeze(1) + 1  # (b, s)
    if not reads:
        if columns.kept is None or len(columns.kept.ends) != columns.batch:
            raise SteeringError(no_gate)
        nowhere = torch.zeros(columns.batch, dtype=torch.long, device=columns.device)
        return Plan(scales, False, step, nowhere, nowhere > 0, columns.kept)
    real = (step <= 0) & _real_tokens(mask, columns)
    position = (real * torch.arange(1, columns.size + 1, device=columns.device)).amax(dim=1)  # (b,), 0: none
    return Plan(scales, True, step, (position - 1).clamp(min=0), position > 0, KeptGates(tuple(ends), {}))


def _real_tokens(mask: Any, columns: Columns) -> Tensor:
    """Which of these columns hold a token rather than padding; (b, s) or (1, 1)."""
    if mask is None:
        return torch.ones(1, 1, dtype=torch.bool, device=columns.device)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise SteeringError("the attention mask is not 2-D, so the last prompt token is unknown; pass (batch, columns)")
    end = columns.past + columns.size
    if mask.shape[1] < end:
        raise SteeringError(f"the attention mask has {mask.shape[1]} columns of {end}; include the cached ones")
    return mask[:, columns.past : end].to(columns.device) != 0


def _prompt_ends(arguments: dict[str, Any], columns: Columns) -> list[int] | None:
    """P of each row by ``steering_prompt_length`` or by the −100 prefix of ``labels``; None: neither is given."""
    length, labels = arguments.pop("steering_prompt_length", None), arguments.get("labels")
    if length is not None:
        return [int(end) for end in torch.as_tensor(length).reshape(-1).expand(columns.batch)]
    if labels is None:
        return None
    reply = torch.cat([labels != -100, labels.new_ones(labels.shape[0], 1, dtype=torch.bool)], dim=1)
    return [columns.past + int(end) for end in reply.int().argmax(dim=1)]


def _refuse_packing(arguments: dict[str, Any]) -> None:
    """Several samples in one row have several last prompt tokens."""
    message = "packed or paged batches cannot be steered; give every prompt a row of its own"
    if any(arguments.get(name) is not None for name in ("block_table", "cu_seq_lens_q")):
        raise SteeringError(message)
    position = arguments.get("position_ids")
    if position is None or arguments.get("attention_mask") is not None:
        return
    if position.ndim == 3:  # Qwen: the text's own positions come first of four
        position = position[0] if position.shape[0] == 4 else position[0, :, :0]
    if bool((position[:, 1:] <= position[:, :-1]).any()):  # transformers packs rows whose positions start again
        raise SteeringError(message)


# ----------------------------------------------------------------------------------------------------------- modules


class RequestSteering(nn.Module):
    """The tensors of one request at one block: a gate to read there, a direction to move along, or both."""

    direction: Tensor
    gate: Tensor
    landmarks: Tensor
    weights: Tensor
    bandwidth: Tensor

    def __init__(self, request: Request, layer: int, hidden_size: int) -> None:
        super().__init__()
        self.request, self.layer = request, layer
        leaves = {leaf: shape for (block, leaf), shape in request.tensors(hidden_size).items() if block == layer}
        self.reads = len(leaves.keys() - {"direction"}) > 0
        self.moves = "direction" in leaves
        for leaf, shape in leaves.items():
            # Parameters, not buffers: disk offload returned garbage for buffers in transformers 4.57.
            tensor = torch.empty(shape, dtype=torch.float32)
            self.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))

    def _apply(self, fn: Any, recurse: bool = True) -> "RequestSteering":
        # .half(), .bfloat16() and .to(dtype) must not round the gate: bf16 moved the mean retain gate by 0.03.
        def keep_dtype(tensor: Tensor) -> Tensor:
            out: Tensor = fn(tensor)
            return out if out.dtype == tensor.dtype else tensor.to(out.device)

        return super()._apply(keep_dtype, recurse)

    def read(self, hidden: Tensor, plan: Plan) -> Tensor:
        """φ(g) of each row, 0 for a row without a prompt token here; (b,) fp32."""
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        g = self.value(hidden[rows, plan.last.to(hidden.device)].float())
        return torch.where(plan.seen.to(g.device), g, torch.zeros_like(g))

    def value(self, states: Tensor) -> Tensor:
        """φ(g) of fp32 states (n, d); (n,)."""
        if self.request.kind == "linear":
            g = (states * self.gate).sum(-1)
        else:
            unit = nn.functional.normalize(states, dim=-1)
            # Without the matrix product: it would be rounded to TF32 where the user allows that.
            distance = torch.cdist(unit, self.landmarks, compute_mode="donot_use_mm_for_euclid_dist")  # (n, J)
            g = (torch.exp(-2 * distance.square() / self.bandwidth) * self.weights).sum(-1)
        if self.request.shape == "clip":
            g = g.clamp(0, 1)
        elif self.request.shape == "dead-zone":
            g = torch.where(g < self.request.threshold, torch.zeros_like(g), g)
        elif self.request.shape == "step":
            g = (g >= self.request.threshold).to(g.dtype)
        return g

    def _of_each_position(self, hidden: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
        """Scope ``token``: the delta (b, s, d) fp32 and the positions (b, s) it moves, from these states alone."""
        if scale == 0:
            return None
        if self.direction.dtype != torch.float32:
            raise SteeringError(f"the steering was loaded as {self.direction.dtype}; load the model in float32")
        gate = self.value(hidden.float().flatten(0, -2)).unflatten(0, hidden.shape[:-1])  # (b, s)
        delta = (gate * scale).unsqueeze(-1) * self.direction[0]
        return delta, gate != 0

    def forward(self, hidden: Tensor, plan: Plan | float) -> tuple[Tensor, Tensor] | None:
        """Read the gate if it is read here; then the delta (b, s, d) fp32 and the positions (b, s) it moves.

        Args:
            plan: with scope ``token`` only the request's λ.

        None: this request is off, or moves nothing at this block.
        """
        if isinstance(plan, int | float):
            return self._of_each_position(hidden, plan)
        request = self.request
        if plan.scales[request.index] == 0:
            return None
        if plan.reads and self.reads:
            plan.kept.gates[request.index, self.layer] = self.read(hidden, plan)
        if not self.moves:
            return None
        gate = plan.kept.gates.get((request.index, request.gate_layer_of(self.layer)))
        if gate is None:
            raise SteeringError(f"request {request.index} was off when the prompt was read; run the prompt again")
        coefficient = gate.to(hidden.device) * plan.scales[request.index]  # (b,)
        step = plan.step.to(hidden.device)
        prompt = step <= 0
        if not request.all_positions:
            columns = torch.arange(step.shape[1], device=step.device)
            prompt = prompt & (columns == plan.last.to(step.device).unsqueeze(1))
        moved = (prompt | ((step > 0) & (step < request.steps))) & (coefficient != 0).unsqueeze(1)
        delta = coefficient[:, None, None] * self.direction[step.clamp(0, request.steps - 1)]
        return torch.where(moved.unsqueeze(-1), delta, torch.zeros_like(delta)), moved


class LayerSteering(nn.ModuleDict):
    """All requests at one block, by index; adds their deltas to the block's output."""

    def __init__(self, requests: dict[str, RequestSteering], config: Any) -> None:
        super().__init__(requests)
        self.per_token = all(child.request.per_token for child in requests.values())
        self.config = config  # of the whole model, whose switches it follows

    def forward(self, hidden: Tensor, plan: Plan | None) -> Tensor:
        if self.per_token:
            scales = strengths(self.config)
            results = [child(hidden, scales[int(index)]) for index, child in self.items()]
        elif plan is None:
            return hidden
        else:
            results = [child(hidden, plan) for child in self.values()]
        shifts = [result for result in results if result is not None]
        if not shifts:
            return hidden
        delta, moved = shifts[0]
        for more, also in shifts[1:]:
            delta, moved = delta + more, moved | also
        # Not "+ 0" elsewhere: −0.0 + 0.0 is 0.0, and the promise is the base's bits.
        return torch.where(moved.unsqueeze(-1), hidden + delta.to(hidden.dtype), hidden)


_steered_layers: dict[type[nn.Module], type[nn.Module]] = {}


def steered_layer(base: type[nn.Module]) -> type[nn.Module]:
    """The decoder layer class ``base`` with steering applied to its output.

    A subclass set on the existing layer keeps the names of its weights, which a wrapper module would change; its
    steering, where it has one, is the child module ``steering``.
    """
    if base in _steered_layers:
        return _steered_layers[base]

    class Steered(base):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            plan = kwargs.pop(_PLAN, None)
            output = super().forward(*args, **kwargs)
            steering = self._modules.get("steering")
            if steering is None:
                return output
            if isinstance(output, tuple):  # transformers 4.57, Qwen2.5-VL
                return (steering(output[0], plan), *output[1:])
            return steering(output, plan)

        def __reduce__(self) -> tuple[Any, ...]:
            # No module holds this class by its name, so that pickle has to be told how to make it.
            return _blank_layer, (base,), vars(self)

    Steered.__name__ = Steered.__qualname__ = f"Steered{base.__name__}"
    _steered_layers[base] = Steered
    return Steered


def _blank_layer(base: type[nn.Module]) -> nn.Module:
    """A steered layer without any content, for pickle to fill."""
    steered = steered_layer(base)
    return steered.__new__(steered)


def _change_class(module: nn.Module, to: type[nn.Module]) -> None:
    """Make ``module`` an instance of ``to``, a subclass of its class that overrides ``forward``."""
    former = type(module)
    module.__class__ = to
    # A bound method on the instance would go on calling the former class: accelerate's dispatch keeps one, and
    # transformers 4.57 and 5.0 leave one behind when hidden states were asked for.
    for name in ("forward", "_old_forward"):
        if name not in vars(module) or (name == "forward" and "_old_forward" in vars(module)):
            continue
        if getattr(vars(module)[name], "__func__", None) is not former.forward:
            raise SteeringError(f"the forward of a {former.__name__} is patched, so it cannot steer; use a fresh base")
        setattr(module, name, types.MethodType(to.forward, module))


# -------------------------------------------------------------------------------------------------------------- seal

# The seal is ``steering.seal`` of config.json: the sha256 of every file that must be the one it was written with, and
# of config.json itself, as it was parsed, without that one value and without the switches, which may be edited. One
# flipped bit could otherwise set a strength to 0 or move a threshold, and an un-erased model would load without a word.
# The steering file is named by ``steering.sha256``; the base's shards are not sealed: reading 14 GB twice takes long.


def _config_sha256(config: dict[str, Any]) -> str:
    """The sha256 of a parsed ``config.json``, without the switches and without the value that it is kept in."""

    def without_switch(entry: dict[str, Any], switch: str) -> dict[str, Any]:
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


def with_seal(config: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """What ``config.json`` is written from: ``config``, sealed together with these files of its directory."""
    seal = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    config = {**config, "steering": {**config["steering"], "seal": seal}}
    seal[CONFIG] = _config_sha256(config)
    return config


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


# ----------------------------------------------------------------------------------------------------- steering file

TensorKey = tuple[int, int, str]  # (request, block, leaf)


def _key_of(name: str, pattern: str) -> TensorKey:
    """The key of a tensor by its name; ``pattern`` has the groups request, layer and leaf."""
    match = re.fullmatch(pattern, name)
    if match is None:
        raise SteeringError(f"'{name}' is not a steering tensor of this model; export again")
    return int(match["request"]), int(match["layer"]), match["leaf"]


def _check_tensors(tensors: dict[TensorKey, Tensor], requests: tuple[Request, ...], hidden_size: int) -> None:
    """Names, shapes, dtype and values against the configuration.

    Raises:
        SteeringError: something is missing, left over, of another shape or dtype, not finite, or a bandwidth ≤ 0.
    """
    wanted = {(r.index, layer, leaf): s for r in requests for (layer, leaf), s in r.tensors(hidden_size).items()}
    for index, layer, leaf in sorted(wanted.keys() ^ tensors.keys()):
        what = "missing" if (index, layer, leaf) in wanted else "not expected"
        raise SteeringError(f"steering tensor '{leaf}' of request {index} at block {layer} is {what}; export again")
    for (index, layer, leaf), shape in wanted.items():
        tensor, name = tensors[index, layer, leaf], f"steering tensor '{leaf}' of request {index} at block {layer}"
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise SteeringError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not float32 {shape}; export again")
        if not bool(tensor.isfinite().all()) or (leaf == "bandwidth" and not tensor.item() > 0):
            raise SteeringError(f"{name} has a value that is not finite, or not positive; export again")


def read_steering(data: bytes, sha256: str, published_layers: str) -> dict[TensorKey, Tensor]:
    """The tensors of a steering file.

    Args:
        data: its bytes, read once: what is checked is what is used.
        sha256: what ``config.steering["sha256"]`` says of the file's bytes.
        published_layers: the published name of the decoder layers, ``language_model.model.layers`` for LLaVA.

    Raises:
        SteeringError: the bytes are not those the configuration names, or are no steering file of this family.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SteeringError(f"{STEERING_FILE}: its sha256 is not the one in config.json; fetch it or export again")
    try:
        named = load(data)
    except SafetensorError as error:
        raise SteeringError(f"{STEERING_FILE}: not a safetensors file ({error}); export again") from error
    pattern = rf"{re.escape(published_layers)}\.(?P<layer>\d+)\.steering\.(?P<request>\d+)\.(?P<leaf>\w+)"
    return {_key_of(name, pattern): tensor for name, tensor in named.items()}


def _complete_saved(directory: Path, steering_names: tuple[str, ...], steering: bytes) -> None:
    """After ``save_pretrained``: steering file, a weight map under the variant's name that includes it, and seal."""
    single, index = directory / f"model.{VARIANT}.safetensors", directory / INDEX
    if single.exists():  # without a map the loader would not look for a second file
        shard = directory / f"model.{VARIANT}-00001-of-00001.safetensors"
        single.replace(shard)
        with safe_open(shard, framework="pt") as file:
            content: dict[str, Any] = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), shard.name)}
    else:
        content = json.loads(index.read_text(encoding="utf-8"))
    content["weight_map"] |= dict.fromkeys(steering_names, STEERING_FILE)
    _replace(directory / STEERING_FILE, steering)
    _replace(index, _as_json(content))
    for name in ("mllmeraser.json", "model.sig"):  # of an export that lay here: a manifest of other files
        (directory / name).unlink(missing_ok=True)
    sealed = {name: (directory / name).read_bytes() for name in ("generation_config.json", INDEX, *CODE)}
    config = json.loads((directory / CONFIG).read_bytes())
    _replace(directory / CONFIG, _as_json(with_seal(config, sealed)))  # the last: before it nothing is loaded from here


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


# -------------------------------------------------------------------------------------- the base of a thin checkpoint


def find_base(steering: dict[str, Any], hub: dict[str, Any]) -> Path | None:
    """The snapshot of the base that a thin checkpoint names, each file the one that was exported; None: not thin.

    In the Hub's cache a large file is named by the sha256 it was fetched with, so its bytes are not read again: that is
    what ``mllmeraser verify DIR`` does. Where a cache does not name them (no symlinks), only their size is compared.

    Args:
        steering: ``config.steering``.
        hub: keywords of ``cached_file``: cache directory, token and the like.

    Raises:
        SteeringError: a file is neither in the cache nor can be fetched, or is not the one that was exported.
    """
    if "base" not in steering:
        return None
    try:
        repo_id, revision, files = (steering["base"][key] for key in ("repo_id", "revision", "files"))
        stated = [(name, entry["bytes"], entry["sha256"]) for name, entry in files.items()]
        plain = all(Path(name).name == name and name.endswith((".safetensors", ".json")) for name in files)
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError(f"{CONFIG}: steering.base is damaged ({error!r}); fetch it or export again") from error
    # A local directory of that name must not be taken for the repository: a revision says nothing about it.
    pinned = re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", f"{repo_id}@{revision}") and not Path(repo_id).exists()
    if not pinned or not plain or not stated:
        raise SteeringError(f"{CONFIG}: steering.base names no pinned repository of the Hub; export again")
    where, folders = f"the base {repo_id}@{revision}", set()
    for name, size, sha256 in stated:
        try:
            path = Path(cached_file(repo_id, name, **{**hub, "revision": revision, "subfolder": ""}))
        except OSError as error:
            mend = f"hf download {repo_id} --revision {revision}"
            raise SteeringError(f"{name} of {where} is neither in the cache nor can be fetched; {mend}") from error
        blob = path.resolve().name
        if not name.endswith(".safetensors"):
            blob = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.stat().st_size != size or (re.fullmatch(r"[0-9a-f]{64}", blob) and blob != sha256):
            raise SteeringError(f"{name} of {where} is not the file that was exported; remove it and fetch it again")
        folders.add(path.parent)
    if len(folders) != 1:
        raise SteeringError(f"the files of {where} lie apart; fetch them into one cache")
    return folders.pop()


# --------------------------------------------------------------------------------------------------------- the mixin


def _in_place_of(native: Callable[..., Any], steered: Callable[..., Any]) -> Callable[..., Any]:
    """The method that calls ``steered`` with ``native`` and its arguments by name.

    It shows the native signature, which ``generate`` reads.
    """
    names = tuple(inspect.signature(native).parameters)[1:]

    @functools.wraps(native)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return steered(self, native, {**dict(zip(names, args, strict=False)), **kwargs})

    return method


class SteeringMixin(PreTrainedModel):
    """Everything the families share; put before the native class, so that ``super()`` is the base model."""

    native_class: ClassVar[type[PreTrainedModel]]
    published_layers: ClassVar[str]  # name of the decoder layers in a published checkpoint
    decoder_path: ClassVar[str] = "model.language_model"  # name of their parent in memory
    base_class: ClassVar[type[PreTrainedModel]]  # the same below the head
    _no_split_modules: Collection[str] | None
    _keep_in_fp32_modules_strict: Collection[str] | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        native = vars(cls).get("native_class")
        if native is not None and issubclass(native, GenerationMixin):
            cls.forward = _in_place_of(native.forward, cls._steered_forward)
            cls.prepare_inputs_for_generation = _in_place_of(native.prepare_inputs_for_generation, cls._steered_inputs)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._install_steering()

    def _install_steering(self) -> None:
        """Make the decoder layers steer, and give the steered ones their (still empty) tensors."""
        layers = self._decoder_layers()
        hidden = self.config.get_text_config().hidden_size
        self.steering_requests = parse_requests(self.config.steering, len(layers))
        for index, layer in enumerate(layers):
            here = {
                str(request.index): RequestSteering(request, index, hidden)
                for request in self.steering_requests
                if index in (*request.layers, request.gate_layer)
            }
            _change_class(layer, steered_layer(type(layer)))
            if here:
                layer.steering = LayerSteering(here, self.config)
        # Matched by class name: without it accelerate would split a steered layer over two devices.
        self._no_split_modules = {*(self._no_split_modules or ()), *(type(layer).__name__ for layer in layers)}
        self._keep_in_fp32_modules_strict = {*(self._keep_in_fp32_modules_strict or ()), "steering"}

    def _decoder_layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.get_submodule(
            self.decoder_path
        ).layers  # get_decoder() finds not all of them in 4.57
        return layers

    def _steering_modules(self) -> Iterator[RequestSteering]:
        return (module for module in self.modules() if isinstance(module, RequestSteering))

    def _fill_steering(self, tensors: dict[TensorKey, Tensor]) -> None:
        """Put the exact fp32 values into the model, whatever the loader made of them."""
        for module in self._steering_modules():
            exact = {leaf: tensors[module.request.index, module.layer, leaf] for leaf, _ in module.named_parameters()}
            for leaf, parameter in list(module.named_parameters()):
                if parameter.is_meta:
                    # Offloaded: accelerate fetches it before every forward; transformers up to 5.12 tells it to do so
                    # in the dtype of the model.
                    hook: Any = module._hf_hook
                    hook.weights_map = exact
                else:
                    value = exact[leaf].to(parameter.device, copy=True)
                    module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
                parameter.requires_grad_(False)

    # -- forward and generate

    @property
    def _per_token(self) -> bool:
        return self.steering_requests[0].per_token  # of one, of all

    def _scales(self) -> tuple[float, ...]:
        """λ of each request that needs a plan; of scope ``token`` none does."""
        return () if self._per_token else strengths(self.config)

    def _steps(self, scales: tuple[float, ...]) -> int:
        return max(request.steps for request in self.steering_requests if scales[request.index] != 0)

    def _steered_forward(self, forward: Any, arguments: dict[str, Any]) -> Any:
        """Call the native ``forward`` with the plan, and leave the gates that were read beside its cache."""
        if _PLAN in arguments:  # from generate, made with the prompt's true width and the 2-D mask
            plan = arguments.pop(_PLAN)
        elif any(scales := self._scales()):
            _refuse_packing(arguments)
            columns = Columns.of(arguments)
            ends = _prompt_ends(arguments, columns)
            plan = make_plan(columns, scales, self._steps(scales), ends, arguments.get("attention_mask"))
        else:
            arguments.pop("steering_prompt_length", None)
            plan = None
        if plan is None:
            return forward(self, **arguments)
        outputs = forward(self, **arguments, **{_PLAN: plan})
        if plan.reads:
            gates = {key: gate.detach() for key, gate in plan.kept.gates.items()}
            for value in outputs.values() if isinstance(outputs, dict) else outputs:
                if isinstance(value, Cache):
                    setattr(value, _KEPT, KeptGates(plan.kept.ends, gates))
        return outputs

    def _steered_inputs(self, prepare: Any, arguments: dict[str, Any]) -> Any:
        """Call the native ``prepare_inputs_for_generation`` and add the plan, while the mask is still 2-D."""
        inputs = prepare(self, **arguments)
        generation, scales = _generation.get(), self._scales()
        if generation is None:
            return inputs
        inputs[_PLAN] = None
        if any(scales):
            columns, mask = Columns.of(inputs), arguments.get("attention_mask")
            ends, starting = [generation.prompt_end] * columns.batch, not generation.started
            inputs[_PLAN] = make_plan(columns, scales, self._steps(scales), ends, mask, starting)
        generation.started = True
        return inputs

    @functools.wraps(GenerationMixin.generate)
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        given = (kwargs.get("attention_mask"), kwargs.get("inputs_embeds"), inputs, kwargs.get("input_ids"))
        prompt_end = next((tensor.shape[1] for tensor in given if tensor is not None), 1)  # 1: only the BOS token
        # A context variable: a keyword would also reach an assistant model, which rejects it.
        token = _generation.set(_Generation(prompt_end))
        try:
            return super().generate(inputs, *args, **kwargs)
        finally:
            _generation.reset(token)

    @functools.wraps(GenerationMixin.init_continuous_batching)
    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        if any(self._scales()):
            raise SteeringError("continuous batching cannot be steered: a prompt has no row of its own; use generate")
        return super().init_continuous_batching(*args, **kwargs)

    # -- from a checkpoint, and to one

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, but strict: seal and steering file are verified first, and every weight must be found.

        The seal is compared with the files as they lie there, whatever keywords change of the configuration. It covers
        everything but the bits of the base's shards: to hash those would double the time of loading, and is what
        ``mllmeraser verify DIR`` does.

        Raises:
            SteeringError: a sealed file, the steering file or a file of a thin checkpoint's base is missing or was
                changed, or a weight is missing.
        """
        name, config = pretrained_model_name_or_path, kwargs.pop("config", None)
        hub = {key: kwargs[key] for key in _HUB_ARGUMENTS if key in kwargs}
        check_seal(_read_file(name, CONFIG, hub), functools.partial(_read_file, name, hub=hub))
        if not isinstance(config, PretrainedConfig):
            given = name if config is None else config
            # The configuration would keep "auto" for its dtype, which the weights are then asked for.
            kept = hub | {key: kwargs.pop(key) for key in ("dtype", "torch_dtype") if key in kwargs}
            config, kwargs = cls.config_class.from_pretrained(given, return_unused_kwargs=True, **kwargs)
            kwargs |= kept
        tensors = cls._read_steering(name, config, hub)
        with_info = kwargs.pop("output_loading_info", False)
        base = find_base(config.steering, hub)
        if base is None:
            source, kwargs["variant"] = name, kwargs.get("variant") or VARIANT
        else:
            source, kwargs = (
                base,
                {key: value for key, value in kwargs.items() if key not in (*_HUB_ARGUMENTS, "variant")},
            )
        verified = _verified.set(True)
        try:
            model, info = super().from_pretrained(
                source, *args, config=config, output_loading_info=True, use_safetensors=True, **kwargs
            )
        finally:
            _verified.reset(verified)
        for what in ("missing_keys", "mismatched_keys", "error_msgs", "unexpected_keys"):
            # Published checkpoints hold leftovers that transformers ignores; a steering tensor is never one. The base
            # of a thin checkpoint has none of them: they are filled in below, from the file that was checked above.
            one_of_ours = {"unexpected_keys": True, "missing_keys": False if base is not None else None}.get(what)
            names = [str(n) for n in info[what] if one_of_ours in (None, ".steering." in str(n))]
            if names:
                raise SteeringError(f"loading the weights left {what} ({min(names)}); fetch it or export again")
        model._fill_steering(tensors)
        if base is not None:
            model.name_or_path = model.config.name_or_path = str(name)
        return (model, info) if with_info else model

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        """Raises a SteeringError: ``from_config`` reads no steering, and whoever fills the model leaves it out."""
        raise SteeringError(
            "a model made of its configuration alone has no steering: load it with from_pretrained; for a server that "
            "fills the weights itself, compute and export again with --gate-scope token"
        )

    @classmethod
    def _read_steering(cls, name: Any, config: Any, hub: dict[str, Any]) -> dict[TensorKey, Tensor]:
        """The verified tensors of the steering file that the configuration names."""
        text = config.get_text_config()
        requests = parse_requests(config.steering, text.num_hidden_layers)
        file, sha256 = config.steering.get("file"), config.steering.get("sha256")
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise SteeringError("config.json: steering.file must name a .safetensors file beside it; export again")
        tensors = read_steering(_read_file(name, file, hub), sha256, cls.published_layers)
        _check_tensors(tensors, requests, text.hidden_size)
        return tensors

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers; writes the variant index and the steering file, so that it loads again steered.

        Raises:
            SteeringError: the steering is off, which would save a checkpoint that looks steered and is not.
        """
        if self._hf_peft_config_loaded:  # only the adapter is written
            return super().save_pretrained(save_directory, *args, **kwargs)
        if not self.config.steering_enabled or self.config.steering_strength == 0:
            raise SteeringError("the steering is switched off; switch it on before saving, or save the base model")
        if args or kwargs.get("push_to_hub") or kwargs.get("variant", VARIANT) not in (None, VARIANT):
            raise SteeringError("save_pretrained takes keywords, no push_to_hub and no variant here; upload afterwards")
        tensors = {
            f"{self.published_layers}.{module.layer}.steering.{module.request.index}.{leaf}": parameter.detach().cpu()
            for module in self._steering_modules()
            for leaf, parameter in module.named_parameters()
        }
        data = save(tensors, metadata={"format": "pt"})
        sha256 = hashlib.sha256(data).hexdigest()
        self.config.steering = {**self.config.steering, "file": STEERING_FILE, "sha256": sha256}
        for key in ("seal", "base"):  # of the files it was loaded from
            self.config.steering.pop(key, None)
        state = kwargs.pop("state_dict", None) or self.state_dict()
        state = {key: value for key, value in state.items() if ".steering." not in key}
        super().save_pretrained(save_directory, state_dict=state, **{**kwargs, "variant": VARIANT})
        if kwargs.get("is_main_process", True):
            _complete_saved(Path(save_directory), tuple(tensors), data)

    # -- from a base model in memory

    @classmethod
    def from_base(cls, base: PreTrainedModel, steering: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
        """A steered model that shares every weight and buffer with ``base``, which stays usable and un-steered.

        Args:
            steering: as in ``config.json``; ``file``, ``sha256`` and ``seal`` are not needed.
            tensors: by the names of the steering bundle, ``requests.{i}.layers.{l}.<leaf>``.

        Raises:
            SteeringError: ``base`` is of another family, or the tensors do not fit ``steering`` and ``base``.
        """
        if type(base) is not cls.native_class:
            raise SteeringError(f"{cls.__name__} steers a {cls.native_class.__name__}, not a {type(base).__name__}")
        pattern = r"requests\.(?P<request>\d+)\.layers\.(?P<layer>\d+)\.(?P<leaf>\w+)"
        keyed = {_key_of(name, pattern): tensor for name, tensor in tensors.items()}
        # A new tree of modules whose tensors are those of the base, its non-persistent buffers and offloaded ones too.
        hooks = [vars(module)["_hf_hook"] for module in base.modules() if "_hf_hook" in vars(module)]
        offloaded = [maps for hook in hooks if (maps := vars(hook).get("weights_map")) is not None]
        shared = {id(value): value for value in (*base.parameters(), *base.buffers(), *offloaded)}
        model = copy.deepcopy(base, shared)
        config = model.config
        config.__class__ = cls.config_class
        config.steering_enabled, config.steering_strength = True, 1.0
        config.steering = copy.deepcopy(steering)
        _change_class(model, cls)
        model._install_steering()
        _check_tensors(keyed, model.steering_requests, config.get_text_config().hidden_size)
        for module in model._steering_modules():
            module.to(_computes_on(model._decoder_layers()[module.layer].self_attn))
        model._fill_steering(keyed)
        return model


def _computes_on(module: nn.Module) -> Any:
    """The device of a module's weights while it computes: accelerate brings offloaded ones there for every forward."""
    owner = next(part for part in module.modules() if any(True for _ in part.parameters(recurse=False)))
    weight = next(owner.parameters(recurse=False))
    return vars(owner)["_hf_hook"].execution_device if weight.is_meta else weight.device


# Whether the files of the model that is being made have been compared with the seal.
_verified: ContextVar[bool] = ContextVar("mllmeraser_verified", default=False)
_HUB_ARGUMENTS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")


def _read_file(name: Any, file: str, hub: dict[str, Any]) -> bytes:
    """The bytes of a file of a checkpoint, from its directory or from the Hub."""
    try:
        path = None if name is None else cached_file(name, file, **hub)
    except OSError as error:
        raise SteeringError(f"{file}: not found in the checkpoint; fetch it or export again") from error
    if path is None:
        raise SteeringError(f"{file}: not found; load from a directory or a Hub repository")
    return Path(path).read_bytes()


# -------------------------------------------------------------------------------------------------------- base models


class SteeredBaseModel(SteeringMixin):
    """The model below the head, as ``AutoModel`` names it: what servers build, by ``from_config``, and fill themselves.

    Their loaders know nothing of ours, so that seal and steering file are verified while the model is made. Only scope
    ``token`` can be served so: nobody tells this model where a prompt ends.
    """

    def __init__(self, config: Any) -> None:
        """As the native class.

        Raises:
            SteeringError: gates of scope ``prompt``, a sealed file or the steering file is missing or was changed.
        """
        super().__init__(config)
        if not self._per_token:
            raise SteeringError(
                "this checkpoint's gate is read at the last prompt token, which is not known here: load it with "
                "AutoModelForImageTextToText, or compute and export again with --gate-scope token"
            )
        if not _verified.get():
            name, commit = config.name_or_path, getattr(config, "_commit_hash", None)
            hub = {} if commit is None else {"revision": commit}
            check_seal(_read_file(name, CONFIG, hub), functools.partial(_read_file, name, hub=hub))
            self._read_steering(name, config, hub)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        return super(SteeringMixin, cls)._from_config(config, **kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Raises a SteeringError: a checkpoint is of the whole model."""
        raise SteeringError("load it with AutoModelForImageTextToText to save it")


def _base_model(family: type[SteeringMixin]) -> type[SteeredBaseModel]:
    """The class of a family's base model, ``MllmEraserLlavaModel`` for LLaVA."""
    native, name = (
        MODEL_MAPPING[family.native_class.config_class],
        family.__name__.replace("ForConditionalGeneration", "Model"),
    )
    facts = {
        "__module__": __name__,
        "config_class": family.config_class,
        "native_class": native,
        "published_layers": family.published_layers,
        "decoder_path": family.decoder_path.removeprefix("model."),
    }
    return type(name, (SteeredBaseModel, native), facts)


# ---------------------------------------------------------------------------------------------------------- families


class MllmEraserLlavaForConditionalGeneration(SteeringMixin, LlavaForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserLlavaConfig
    native_class = LlavaForConditionalGeneration
    published_layers = "language_model.model.layers"


class MllmEraserLlavaNextForConditionalGeneration(SteeringMixin, LlavaNextForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserLlavaNextConfig
    native_class = LlavaNextForConditionalGeneration
    published_layers = "language_model.model.layers"


class MllmEraserLlavaOnevisionForConditionalGeneration(
    SteeringMixin, LlavaOnevisionForConditionalGeneration, GenerationMixin
):
    config_class = MllmEraserLlavaOnevisionConfig
    native_class = LlavaOnevisionForConditionalGeneration
    published_layers = "language_model.model.layers"


class MllmEraserQwen2VLForConditionalGeneration(SteeringMixin, Qwen2VLForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserQwen2VLConfig
    native_class = Qwen2VLForConditionalGeneration
    published_layers = "model.layers"


class MllmEraserQwen2_5_VLForConditionalGeneration(SteeringMixin, Qwen2_5_VLForConditionalGeneration, GenerationMixin):  # noqa: N801
    config_class = MllmEraserQwen2_5_VLConfig
    native_class = Qwen2_5_VLForConditionalGeneration
    published_layers = "model.layers"


class MllmEraserQwen3VLForConditionalGeneration(SteeringMixin, Qwen3VLForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserQwen3VLConfig
    native_class = Qwen3VLForConditionalGeneration
    published_layers = "model.language_model.layers"


class MllmEraserInternVLForConditionalGeneration(SteeringMixin, InternVLForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserInternVLConfig
    native_class = InternVLForConditionalGeneration
    published_layers = "language_model.model.layers"


class MllmEraserIdefics3ForConditionalGeneration(SteeringMixin, Idefics3ForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserIdefics3Config
    native_class = Idefics3ForConditionalGeneration
    published_layers = "model.text_model.layers"
    decoder_path = "model.text_model"


class MllmEraserSmolVLMForConditionalGeneration(SteeringMixin, SmolVLMForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserSmolVLMConfig
    native_class = SmolVLMForConditionalGeneration
    published_layers = "model.text_model.layers"
    decoder_path = "model.text_model"


class MllmEraserGemma3ForConditionalGeneration(SteeringMixin, Gemma3ForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserGemma3Config
    native_class = Gemma3ForConditionalGeneration
    published_layers = "language_model.model.layers"


class MllmEraserMistral3ForConditionalGeneration(SteeringMixin, Mistral3ForConditionalGeneration, GenerationMixin):
    config_class = MllmEraserMistral3Config
    native_class = Mistral3ForConditionalGeneration
    published_layers = "language_model.model.layers"


FAMILIES: dict[str, type[SteeringMixin]] = {
    family.native_class.config_class.model_type: family
    for family in (
        MllmEraserLlavaForConditionalGeneration,
        MllmEraserLlavaNextForConditionalGeneration,
        MllmEraserLlavaOnevisionForConditionalGeneration,
        MllmEraserQwen2VLForConditionalGeneration,
        MllmEraserQwen2_5_VLForConditionalGeneration,
        MllmEraserQwen3VLForConditionalGeneration,
        MllmEraserInternVLForConditionalGeneration,
        MllmEraserIdefics3ForConditionalGeneration,
        MllmEraserSmolVLMForConditionalGeneration,
        MllmEraserGemma3ForConditionalGeneration,
        MllmEraserMistral3ForConditionalGeneration,
    )
}
for _native, _family in FAMILIES.items():
    # So that save_pretrained also writes these two files and the auto_map.
    _family.register_for_auto_class("AutoModelForImageTextToText")
    _family.config_class.register_for_auto_class("AutoConfig")
    _base = _family.base_class = _base_model(_family)
    setattr(sys.modules[__name__], _base.__name__, _base)  # where AutoModel looks it up
    if conversion_mapping is not None:
        # transformers 5 renames published weights for its own classes only; without this the language model of a
        # subclass stays random. 5.8 needs the model_type beside the class name.
        for _ours, *_names in ((_family, _family.__name__, _family.config_class.model_type), (_base, _base.__name__)):
            for _key in (_ours.native_class.__name__, _native):
                _mapping = conversion_mapping.get_checkpoint_conversion_mapping(_key)
                if _mapping is not None:
                    for _name in _names:
                        conversion_mapping.register_checkpoint_conversion_mapping(_name, _mapping, overwrite=True)
                    break


def steered_class(model_type: str) -> type[SteeringMixin]:
    """The steered class for a base's (or its own) ``model_type``.

    Raises:
        SteeringError: the family is not supported.
    """
    family = FAMILIES.get(model_type.removeprefix("mllmeraser_"))
    if family is None:
        raise SteeringError(f"model_type '{model_type}' is not supported; supported: {', '.join(sorted(FAMILIES))}")
    return family


def checkpoint_tensor_name(model_type: str, layer: int, request: int, leaf: str) -> str:
    """The published (on-disk) name of a steering tensor, ``language_model.model.layers.4.steering.0.direction``."""
    return f"{steered_class(model_type).published_layers}.{layer}.steering.{request}.{leaf}"
