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

Which columns are prompt: in ``generate`` the prompt it was called with. In a plain ``forward`` on an empty cache the
whole input, unless ``labels`` (its −100 prefix) or ``steering_prompt_length`` (per row, the column of the first reply
token) say where the reply starts, as for scoring an answer. A new turn on a used cache is gated by its own last token.
What cannot be placed (4-D masks, packing, chunked prefill, continuous batching) raises a :class:`SteeringError`.

Loading is strict: the steering file must match the sha256, names and shapes in ``config.steering``, and every weight
must be found; anything else raises, so that no un-erased model is ever returned by accident. This is suppression at
inference: the knowledge stays in the weights, and whoever holds the files can switch it off.

Parts: requests · plan (what a forward has to move) · modules · steering file · the mixin · families.
"""

import copy
import functools
import hashlib
import inspect
import json
import math
import types
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import (
    GenerationMixin,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.cache_utils import Cache
from transformers.utils import cached_file

from .configuration_mllmeraser import MllmEraserLlavaConfig, MllmEraserQwen2_5_VLConfig

SCHEMA = 1
STEERING_FILE = "mllmeraser-steering.safetensors"
# The weight map lies in a variant index, so that the native class, which looks for the default one, finds no weights.
VARIANT = "mllmeraser"


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
    threshold: float | None
    all_positions: bool
    steps: int  # K
    landmarks: int  # J; 0 for a linear gate

    def gate_layer_of(self, layer: int) -> int:
        return layer if self.gate_layer is None else self.gate_layer

    def tensors(self, hidden_size: int) -> dict[tuple[int, str], tuple[int, ...]]:
        """Shape of every tensor of this request, by (block, leaf)."""
        if self.kind == "linear":
            gate: dict[str, tuple[int, ...]] = {"gate": (hidden_size,)}
        else:
            gate = {"landmarks": (self.landmarks, hidden_size), "weights": (self.landmarks,), "bandwidth": ()}
        shapes = {(layer, "direction"): (self.steps, hidden_size) for layer in self.layers}
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
    return tuple(_parse_request(index, entry, num_layers) for index, entry in enumerate(steering["requests"]))


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
            threshold=gate["threshold"],
            all_positions=entry["prompt_positions"] == "all",
            steps=entry["reply_steps"],
            landmarks=entry["landmarks"] or 0,
        )
        strength, enabled, positions = entry["strength"], entry["enabled"], entry["prompt_positions"]
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
        "gate.threshold": request.shape in ("identity", "clip")
        or (isinstance(request.threshold, int | float) and math.isfinite(request.threshold)),
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


def _cache_of(arguments: dict[str, Any]) -> Cache | None:
    cache = next((arguments[name] for name in _CACHE_NAMES if arguments.get(name) is not None), None)
    if cache is not None and not isinstance(cache, Cache):
        raise SteeringError(f"the cache is a {type(cache).__name__}; pass a transformers Cache object")
    return cache


def _columns_of(arguments: dict[str, Any]) -> tuple[int, int, int]:
    """Batch size, number of columns, and number of columns already in the cache."""
    ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    given = ids if embeds is None else embeds
    if given is None:
        raise SteeringError("pass input_ids or inputs_embeds")
    cache, position = _cache_of(arguments), arguments.get("cache_position")
    if position is not None:  # transformers 4.57, whose static cache undercounts left-padded keys
        past = int(position[0])
    else:
        past = 0 if cache is None else int(cache.get_seq_length())
    return given.shape[0], given.shape[1], past


def _last_real(mask: Tensor | None, step: Tensor, past: int) -> tuple[Tensor, Tensor]:
    """Index of the last real prompt token of each row within these columns, and whether there is one; (b,), (b,)."""
    real = step <= 0  # (b, s) prompt columns
    size = real.shape[1]
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            raise SteeringError(
                "the attention mask is not 2-D, so the last prompt token is unknown; pass the (batch, columns) mask"
            )
        if mask.shape[1] < past + size:
            raise SteeringError(
                f"the attention mask has {mask.shape[1]} columns for {past} cached and {size} new ones; pass them all"
            )
        real = real & (mask[:, past : past + size].to(real.device) != 0)
    position = (real * torch.arange(1, size + 1, device=real.device)).amax(dim=1)  # 0: none
    return (position - 1).clamp(min=0), position > 0


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
        last = hidden[rows, plan.last.to(hidden.device)].float()  # (b, d)
        if self.request.kind == "linear":
            g = (last * self.gate).sum(-1)
        else:
            unit = nn.functional.normalize(last, dim=-1)
            # Without the matrix product: it would be rounded to TF32 where the user allows that.
            distance = torch.cdist(unit, self.landmarks, compute_mode="donot_use_mm_for_euclid_dist")  # (b, J)
            g = (torch.exp(-2 * distance.square() / self.bandwidth) * self.weights).sum(-1)
        if self.request.shape == "clip":
            g = g.clamp(0, 1)
        elif self.request.shape == "dead-zone":
            g = torch.where(g < self.request.threshold, torch.zeros_like(g), g)
        elif self.request.shape == "step":
            g = (g >= self.request.threshold).to(g.dtype)
        return torch.where(plan.seen.to(g.device), g, torch.zeros_like(g))

    def forward(self, hidden: Tensor, plan: Plan) -> tuple[Tensor, Tensor] | None:
        """Read the gate if it is read here; then the delta (b, s, d) fp32 and the positions (b, s) it moves."""
        request = self.request
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

    def forward(self, hidden: Tensor, plan: Plan) -> Tensor:
        results = [child(hidden, plan) for child in self.values() if plan.scales[child.request.index] != 0]
        shifts = [result for result in results if result is not None]
        if not shifts:
            return hidden
        delta, moved = shifts[0]
        for more, also in shifts[1:]:
            delta, moved = delta + more, moved | also
        # Not "+ 0" elsewhere: −0.0 + 0.0 is 0.0, and the promise is the base's bits.
        return torch.where(moved.unsqueeze(-1), hidden + delta.to(hidden.dtype), hidden)


@functools.lru_cache(maxsize=None)
def steered_layer(base: type[nn.Module]) -> type[nn.Module]:
    """The decoder layer class ``base`` with steering applied to its output.

    A subclass set on the existing layer keeps the names of its weights, which a wrapper module would change; its
    steering, where it has one, is the child module ``steering``.
    """

    class Steered(base):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            plan = kwargs.pop(_PLAN, None)
            output = super().forward(*args, **kwargs)
            steering = self._modules.get("steering")
            if plan is None or steering is None:
                return output
            if isinstance(output, tuple):  # transformers 4.57, Qwen2.5-VL
                return (steering(output[0], plan), *output[1:])
            return steering(output, plan)

    Steered.__name__ = Steered.__qualname__ = f"Steered{base.__name__}"
    return Steered


def _change_class(module: nn.Module, to: type[nn.Module]) -> None:
    module.__class__ = to
    if "_old_forward" in vars(module):  # accelerate's dispatch keeps a bound method of the former class
        module._old_forward = types.MethodType(to.forward, module)


# ----------------------------------------------------------------------------------------------------- steering file


def _check_tensors(tensors: dict[tuple[int, int, str], Tensor], requests: tuple[Request, ...], hidden: int) -> None:
    """Names, shapes, dtype and finite values against the configuration; keys are (request, block, leaf)."""
    wanted = {(r.index, block, leaf): shape for r in requests for (block, leaf), shape in r.tensors(hidden).items()}
    for what, keys in (("missing", wanted.keys() - tensors.keys()), ("not expected", tensors.keys() - wanted.keys())):
        if keys:
            index, block, leaf = min(keys)
            raise SteeringError(f"steering tensor '{leaf}' of request {index} at block {block} is {what}; export again")
    for key, shape in wanted.items():
        tensor, name = tensors[key], f"steering tensor '{key[2]}' of request {key[0]} at block {key[1]}"
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise SteeringError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not float32 {shape}; export again")
        if not bool(tensor.isfinite().all()) or (key[2] == "bandwidth" and not tensor.item() > 0):
            raise SteeringError(f"{name} holds values that are not finite or not positive; export again")


def read_steering_file(path: Path, sha256: str, prefix: str) -> dict[tuple[int, int, str], Tensor]:
    """The tensors of a steering file by (request, block, leaf).

    Args:
        sha256: what ``config.steering["sha256"]`` says of the file's bytes.
        prefix: the published name of the decoder layers, ``language_model.model.layers`` for LLaVA.

    Raises:
        SteeringError: the bytes are not those the configuration names, or are no steering file of this family.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SteeringError(
            f"{path.name}: its sha256 is not the one in config.json; fetch or export the checkpoint again"
        )
    try:
        named = load(data)
    except SafetensorError as error:
        raise SteeringError(f"{path.name}: not a safetensors file ({error}); export again") from error
    tensors = {}
    for name, tensor in named.items():
        parts = name.removeprefix(f"{prefix}.").split(".")
        if not name.startswith(f"{prefix}.") or len(parts) != 4 or parts[1] != "steering":
            raise SteeringError(f"{path.name}: '{name}' is not a steering tensor of this model; export again")
        tensors[int(parts[2]), int(parts[0]), parts[3]] = tensor
    return tensors


# --------------------------------------------------------------------------------------------------------- the mixin


class SteeringMixin(PreTrainedModel):  # type: ignore[misc]
    """Everything a family shares; put before the native class, so that ``super()`` is the base model."""

    native_class: ClassVar[type[PreTrainedModel]]
    published_layers: ClassVar[str]  # name of the decoder layers in a published checkpoint

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._install_steering()

    def _install_steering(self) -> None:
        """Make the decoder layers steer, and give the steered ones their (still empty) tensors."""
        layers = self.get_decoder().layers
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
                layer.steering = LayerSteering(here)
        # Matched by class name: without it accelerate would split a steered layer over two devices.
        self._no_split_modules = {*(self._no_split_modules or ()), *(type(layer).__name__ for layer in layers)}
        self._keep_in_fp32_modules_strict = {*(self._keep_in_fp32_modules_strict or ()), "steering"}

    def _steering_modules(self) -> Iterator[tuple[tuple[int, int], RequestSteering]]:
        """((request, block), module) of everything that holds steering tensors."""
        for index, layer in enumerate(self.get_decoder().layers):
            if "steering" in layer._modules:
                for child in layer.steering.values():
                    yield (child.request.index, index), child

    def _fill_steering(self, tensors: dict[tuple[int, int, str], Tensor], device: torch.device | None = None) -> None:
        """Put the exact fp32 values into the model, whatever the loader made of them."""
        for (index, layer), module in self._steering_modules():
            for leaf, parameter in module.named_parameters():
                target = parameter.device if device is None else device
                if target.type != "meta":  # offloaded: accelerate fetches it from the verified file
                    value = tensors[index, layer, leaf].to(target, copy=True)
                    module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
                parameter.requires_grad_(False)

    # -- forward and generate

    def _scales(self) -> tuple[float, ...]:
        """λ of each request as the configuration stands now: on/off and strength may be changed on a loaded model."""
        on = self.config.steering_strength if self.config.steering_enabled else 0.0
        return tuple(on * entry["strength"] if entry["enabled"] else 0.0 for entry in self.config.steering["requests"])

    def _plan(
        self, arguments: dict[str, Any], mask: Tensor | None, ends: list[int] | None, starting: bool = False
    ) -> Plan | None:
        """What a forward with these arguments has to move; None: nothing.

        Args:
            ends: the number of prompt columns, cached ones included, for each row; None: not known.
            starting: the first forward of ``generate``, which must hold the prompt's end.

        Raises:
            SteeringError: it cannot be told which token decides, or which columns are the prompt.
        """
        scales = self._scales()
        if not any(scales):
            return None
        for name in ("block_table", "cu_seq_lens_q"):
            if arguments.get(name) is not None:
                raise SteeringError(f"'{name}': packed and paged batches cannot be steered; run padded batches")
        batch, size, past = _columns_of(arguments)
        cache = _cache_of(arguments)
        kept = None if cache is None else vars(cache).get(_KEPT)
        steps = max(request.steps for request in self.steering_requests if scales[request.index])
        if ends is None:
            if past == 0:
                ends = [size] * batch
            elif size > 1:
                raise SteeringError(
                    "several new columns on a used cache may be prompt or reply; pass steering_prompt_length (per row, "
                    "the column of the first reply token), or use generate"
                )
            elif kept is None:
                if steps > 1:
                    raise SteeringError("the cache holds no gate; run the prompt through this model first")
                return None
            else:
                ends = list(kept.ends)
        if len(ends) != batch:
            raise SteeringError(f"{len(ends)} prompt ends for {batch} rows; run the prompt again with these rows")
        if min(ends) < 1:
            raise SteeringError(
                "the first column is marked as reply; mask the prompt with -100 in labels, or pass "
                "steering_prompt_length (at least 1)"
            )
        if max(ends) > past + size:
            raise SteeringError("the prompt's end lies outside these columns; a prompt cannot be prefilled in chunks")
        here = [end > past for end in ends]
        if any(here) != all(here):
            raise SteeringError("the prompt's end lies here for some rows and in the cache for others; split the batch")
        if starting and not here[0]:
            raise SteeringError("the cache already holds the whole prompt; pass at least one new token to generate")
        if not here[0]:
            if past - max(ends) + 1 >= steps:
                return None
            if kept is None:
                raise SteeringError("the cache holds no gate; run the prompt through this model first")
            if len(kept.ends) != batch:
                raise SteeringError(
                    f"the cache holds gates for {len(kept.ends)} rows, not {batch}; run the prompt again with these rows"
                )
        elif past > 0 and kept is not None and tuple(ends) == kept.ends and size == 1 and not starting:
            raise SteeringError("the cache was cut back into the prompt; run the prompt again")
        given = arguments.get("input_ids")
        device = (arguments["inputs_embeds"] if given is None else given).device
        columns = torch.arange(past, past + size, device=device)
        step = columns - torch.tensor(ends, device=device).unsqueeze(1) + 1  # (b, s)
        if not here[0]:
            nowhere = torch.zeros(batch, dtype=torch.long, device=device)
            return Plan(scales, False, step, nowhere, nowhere > 0, kept)
        last, seen = _last_real(mask, step, past)
        return Plan(scales, True, step, last, seen, KeptGates(tuple(ends), {}))

    def _prompt_ends(self, arguments: dict[str, Any]) -> list[int] | None:
        """Where the reply starts, by ``steering_prompt_length`` or by ``labels``; None: neither is given."""
        batch, size, past = _columns_of(arguments)
        length, labels = arguments.pop("steering_prompt_length", None), arguments.get("labels")
        if length is not None:
            return [int(end) for end in torch.as_tensor(length).reshape(-1).expand(batch)]
        if labels is None:
            return None
        first = torch.cat([labels != -100, labels.new_ones(batch, 1, dtype=torch.bool)], dim=1).int().argmax(dim=1)
        return [past + int(end) for end in first]

    def steered_forward(self, forward: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Call the native ``forward`` with the plan, and leave the gates it read beside its cache."""
        arguments = {**dict(zip(_positional(forward), args, strict=False)), **kwargs}
        if _PLAN in arguments:  # generate: prepared with the prompt's true width and the 2-D mask
            plan = arguments.pop(_PLAN)
        else:
            ends = self._prompt_ends(arguments)
            plan = self._plan(arguments, arguments.get("attention_mask"), ends)
            if plan is not None:
                _refuse_packing(arguments)
        if plan is None:
            return forward(**arguments)
        outputs = forward(**arguments, **{_PLAN: plan})
        if plan.reads:
            for value in outputs.values() if isinstance(outputs, dict) else outputs:
                if isinstance(value, Cache):
                    setattr(value, _KEPT, plan.kept)
        return outputs

    def steered_inputs(self, prepare: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Call the native ``prepare_inputs_for_generation`` and add the plan, while the mask is still 2-D."""
        arguments = {**dict(zip(_positional(prepare), args, strict=False)), **kwargs}
        inputs = prepare(**arguments)
        generation = _generation.get()
        if generation is not None:
            batch = _columns_of(inputs)[0]
            ends = [generation.prompt_end] * batch
            inputs[_PLAN] = self._plan(inputs, arguments.get("attention_mask"), ends, starting=not generation.started)
            generation.started = True
        return inputs

    @functools.wraps(GenerationMixin.generate)
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        # In a context variable: an argument would also be sent to an assistant model, which does not know it.
        given = (kwargs.get("attention_mask"), kwargs.get("inputs_embeds"), inputs, kwargs.get("input_ids"))
        prompt_end = next((tensor.shape[1] for tensor in given if tensor is not None), 1)  # 1: only the BOS token
        token = _generation.set(_Generation(prompt_end))
        try:
            return super().generate(inputs, *args, **kwargs)
        finally:
            _generation.reset(token)

    @functools.wraps(GenerationMixin.init_continuous_batching)
    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        if any(self._scales()):
            raise SteeringError("continuous batching cannot be steered: it has no prompt of its own; use generate")
        return super().init_continuous_batching(*args, **kwargs)

    # -- from a base model in memory

    @classmethod
    def from_base(cls, base: PreTrainedModel, steering: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
        """A steered model that shares every weight and buffer with ``base``, which stays usable and un-steered.

        Args:
            steering: as in ``config.json``; ``file`` and ``sha256`` are not needed.
            tensors: by the names of the steering bundle, ``requests.{i}.layers.{l}.<leaf>``.

        Raises:
            SteeringError: ``base`` is of another family, or the tensors do not fit ``steering`` and ``base``.
        """
        if type(base) is not cls.native_class:
            raise SteeringError(f"{cls.__name__} steers a {cls.native_class.__name__}, not a {type(base).__name__}")
        keyed = {}
        for name, tensor in tensors.items():
            parts = name.split(".")
            if len(parts) != 5 or parts[::2][:2] != ["requests", "layers"]:
                raise SteeringError(f"'{name}' is not a tensor name of a steering bundle")
            keyed[int(parts[1]), int(parts[3]), parts[4]] = tensor
        shared = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
        model = copy.deepcopy(base, shared)  # a new module tree, whose tensors are those of the base
        config = model.config
        config.__class__ = cls.config_class
        config.steering_enabled, config.steering_strength = True, 1.0
        config.steering = copy.deepcopy(steering)
        _change_class(model, cls)
        model._install_steering()
        _check_tensors(keyed, model.steering_requests, config.get_text_config().hidden_size)
        model._fill_steering(keyed, device=model.get_output_embeddings().weight.device)
        return model


def _refuse_packing(arguments: dict[str, Any]) -> None:
    """Positions that start again within a row, without a mask, are how several samples are packed into one row."""
    position = arguments.get("position_ids")
    if position is None or arguments.get("attention_mask") is not None or _columns_of(arguments)[2] > 0:
        return
    if position.ndim == 3:
        if position.shape[0] != 4:  # multimodal positions only; the text's own come first in four
            return
        position = position[0]
    if bool((position[:, 1:] <= position[:, :-1]).any()):
        raise SteeringError("several samples are packed into one row; a row must hold one prompt to be steered")


# ---------------------------------------------------------------------------------------------------------- families


def _positional(method: Any) -> tuple[str, ...]:
    """Names of a bound method's positional parameters."""
    return tuple(inspect.signature(method).parameters)


class MllmEraserLlavaForConditionalGeneration(SteeringMixin, LlavaForConditionalGeneration, GenerationMixin):  # type: ignore[misc]
    """LLaVA whose decoder layers steer."""

    config_class = MllmEraserLlavaConfig
    native_class = LlavaForConditionalGeneration
    published_layers = "language_model.model.layers"

    # generate() reads the signatures of these two, so they show the native ones.
    @functools.wraps(native_class.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.steered_forward(super().forward, args, kwargs)

    @functools.wraps(native_class.prepare_inputs_for_generation)
    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        return self.steered_inputs(super().prepare_inputs_for_generation, args, kwargs)


class MllmEraserQwen2_5_VLForConditionalGeneration(  # type: ignore[misc]  # noqa: N801
    SteeringMixin, Qwen2_5_VLForConditionalGeneration, GenerationMixin
):
    """Qwen2.5-VL whose decoder layers steer."""

    config_class = MllmEraserQwen2_5_VLConfig
    native_class = Qwen2_5_VLForConditionalGeneration
    published_layers = "model.layers"

    @functools.wraps(native_class.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.steered_forward(super().forward, args, kwargs)

    @functools.wraps(native_class.prepare_inputs_for_generation)
    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        return self.steered_inputs(super().prepare_inputs_for_generation, args, kwargs)


FAMILIES: dict[str, type[SteeringMixin]] = {
    family.native_class.config_class.model_type: family
    for family in (MllmEraserLlavaForConditionalGeneration, MllmEraserQwen2_5_VLForConditionalGeneration)
}


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
