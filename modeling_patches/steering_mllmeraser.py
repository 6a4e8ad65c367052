"""How a decoder layer recognises what somebody asked to be forgotten, and what it does then.

For a request, h is the output of a decoder layer, before any request has changed it there; all arithmetic is in fp32.

**The gate** reads a state, or p random projections z = R h of it (R holds signs):

    g = uᵀ z                                     linear, u (p,)
    g = Σ_j w_j exp(−2 ‖ẑ − c_j‖² / m²)          kernel, ẑ = z/‖z‖, landmarks c (J, p), w (J,), bandwidth m²

**Its scope** says which states are read, and what they decide:

    conversation   φ = 1 for a row if any of its real columns has g ≥ θ, now or earlier: the row is sealed, and stays so
                   (a request may name the tokens that begin a user's turn: then for each turn by itself)
    prompt         φ(g) for a row, read once at its last prompt token (the paper, arXiv 2510.04217)
    token          φ(g) for each column by itself; nothing is kept

**The edit** says what happens at the edited layers, at this one or later, with c = λ φ:

    seal           h_t ← h_t + c (m_k − h_t)     every column of the row becomes a constant
    add            h_t ← h_t + c r_k             the paper's push
    k = clip(t − (P − 1), 0, K − 1)              t the column, P the end of the prompt; k = 0 where nobody tells P

λ is the request's strength times ``config.steering_strength``. φ is ``identity``, ``clip`` (to [0, 1]), ``dead-zone``
(0 below θ) or ``step`` (1 from θ on). Where c is 0 a column is not touched: its bits are those of the base.

**Nobody has to co-operate.** The layer itself reads the mask that it was given, the states and its own part of the
cache. P decides only which word of the refusal comes next. A sealed row's states behind the last edited layer depend on
nothing but k, so that nothing computed from them can tell what the row was about.

**It fails closed.** A forward that misses a steered layer, a cache that was filled elsewhere, tensors that were never
filled: each raises a :class:`SteeringError`.

Parts: switches · a forward · columns · what a cache carries · the gate and the edit · layers and decoder.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from .format_mllmeraser import Kept, Request, SteeringError, owner_name, strengths

# ---------------------------------------------------------------------------------------------------------- switches


class Steering:
    """What all steered layers of one model share: its requests, its switches, and a mark for its caches."""

    def __init__(self, config: Any, requests: tuple[Request, ...]) -> None:
        self.config = config  # of the whole model, which holds the switches
        self.requests = requests
        self.layers = {layer for r in requests for layer in (*r.layers, r.gate_of(r.layers[0]))}
        self.mark: str | None = None  # of the tensors: a cache of another steering has another

    def scales(self) -> tuple[float, ...]:
        """λ of each request as the switches stand now, of this call before those of the process."""
        on = self.config.steering_enabled
        if not torch.compiler.is_compiling():  # a compiled graph cannot ask for the context that it runs in
            on = _switched.get().get(id(self), on)
        return strengths(on, self.config.steering_strength, self.config.steering["requests"])

    @contextmanager
    def switched(self, enabled: bool) -> Iterator[None]:
        """Within it, in this thread (or task) only, the steering is on or off, whatever the configuration says."""
        if not isinstance(enabled, bool):
            raise SteeringError(f"steering(enabled={enabled!r}): give True or False")
        token = _switched.set({**_switched.get(), id(self): enabled})
        try:
            yield
        finally:
            _switched.reset(token)


_switched: ContextVar[dict[int, bool]] = ContextVar("mllmeraser_switched", default={})  # noqa: B039 - never changed


# --------------------------------------------------------------------------------------------------------- a forward


@dataclass
class Forward:
    """One forward of the decoder over the columns [past, past + size) of ``batch`` rows."""

    batch: int
    size: int
    past: Any  # columns in the cache; an int, or in a compiled graph a tensor () where the cache is static
    ends: tuple[int, ...] | None  # P of each row; None: nobody told it
    scales: tuple[float, ...]  # λ of each request
    told: bool = True  # P was told for this forward, and is not what the cache carries
    ids: Tensor | None = None  # (b, s); None: not seen, because only their embeddings were given
    openings: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # φ (b, s) by request and layer of its gate
    reached: set[int] = field(default_factory=set)  # steered layers

    @classmethod
    def of(cls, steering: Steering, given: dict[str, Any]) -> "Forward":
        """Read from the arguments of the decoder's ``forward``."""
        ids, embeds = given.get("input_ids"), given.get("inputs_embeds")
        shown = ids if embeds is None else embeds
        if shown is None:
            raise SteeringError("pass input_ids or inputs_embeds")
        scales, ends = steering.scales(), given.pop(ENDS, None)
        told, own = given.pop(IDS, None), given.get("input_ids")
        ids = own if told is None else told
        cache, past = cache_of(given), 0  # type: Any, Any
        on = [request for request in steering.requests if scales[request.index] != 0]
        if any(request.scope != "token" for request in on):
            if cache is not None and not isinstance(cache, Cache):
                raise SteeringError(f"the cache is a {type(cache).__name__}; pass a transformers Cache, or none")
            if cache is None and any(given.get(name) is not None for name in ("block_table", "read_index")):
                raise SteeringError("a paged cache carries no seal; use generate, or --gate-scope token")
            past = 0 if cache is None else cache.get_seq_length()
            if isinstance(past, Tensor):  # a static cache goes on counting in this very tensor
                past = past.clone() if torch.compiler.is_compiling() else int(past)  # once, so that no layer waits
            # until 4.57 goes: its static cache undercounts left-padded keys
            if given.get("cache_position") is not None:
                past = int(given["cache_position"][0])
            mask = given.get("attention_mask")
            flat = isinstance(mask, Tensor) and mask.ndim == 2 and not isinstance(past, Tensor)
            # transformers would take these columns for padding
            if flat and given["attention_mask"].shape[1] < past + shown.shape[1]:
                raise SteeringError("the attention mask must include the cached columns")
        if any(request.scope == "prompt" for request in on):
            _refuse_packing(given)
        ids = ids if ids is not None and ids.shape == shown.shape[:2] else None
        return cls(shown.shape[0], shown.shape[1], past, ends, scales, told=ends is not None, ids=ids)

    def steps(self, device: torch.device) -> Tensor | None:
        """t − (P − 1) of each column, (b, s): ≤ 0 prompt, k > 0 the k-th of the reply. None where P is not known."""
        if self.ends is None:
            return None
        columns = torch.arange(self.size, device=device) + self.past
        # One number where it can be: the copy of several makes a device wait.
        same = len(set(self.ends)) == 1
        end = self.ends[0] if same else torch.tensor(self.ends, device=device).unsqueeze(1)
        return (columns - end + 1).expand(self.batch, -1)

    def turns(self, beginning: tuple[int, ...], device: torch.device) -> Tensor:
        """Where a user's turn begins, (b, s). What is said in reply begins none, nor do tokens that are not seen."""
        width = self.size - len(beginning) + 1
        if not beginning or self.ids is None or width < 1:
            return torch.zeros(self.batch, self.size, dtype=torch.bool, device=device)
        ids = self.ids.to(device)
        found = torch.stack([ids[:, i : i + width] == token for i, token in enumerate(beginning)]).all(dim=0)
        found = nn.functional.pad(found, (0, len(beginning) - 1))
        step = self.steps(device)
        return found if step is None else found & (step <= 0)

    def last_of_prompt(self, columns: "Columns", device: torch.device) -> Tensor:
        """The index here of each row's last real prompt token, (b,); −1 where it has none here."""
        step = self.steps(device)
        assert step is not None
        prompt = step <= 0 if columns.real is None else (step <= 0) & columns.real.to(device)
        return (prompt * torch.arange(1, self.size + 1, device=device)).amax(dim=1) - 1

    def find_end_of_prompt(self) -> bool:
        """Scope ``prompt``: whether these columns hold the end of the prompts.

        Raises:
            SteeringError: it cannot be told which token decides, or which columns are the prompt.
        """
        if isinstance(self.past, Tensor) and torch.compiler.is_compiling():
            return self.size > 1  # a graph cannot ask a static cache how much it holds; it decodes column by column
        past = int(self.past)
        if self.ends is None and past == 0:  # a plain forward: the whole input is the prompt
            self.ends = (self.size,) * self.batch
        if self.ends is None or (self.size > 1 and not self.told and past > 0):
            raise SteeringError(
                "these columns may be prompt or reply; use generate, or pass steering_prompt_length (per row, the "
                "column of the first reply token)"
            )
        if len(self.ends) != self.batch or min(self.ends) < 1:
            raise SteeringError(
                "the first column is marked as reply: set the labels of the prompt to -100, or pass "
                "steering_prompt_length"
            )
        if max(self.ends) > past + self.size:
            raise SteeringError("the prompt's end lies beyond these columns; a prompt cannot be prefilled in chunks")
        if max(self.ends) > past >= min(self.ends):
            raise SteeringError("the prompt's end lies here for some rows and in the cache for others; split the batch")
        return max(self.ends) > past

    def finish(self, steering: Steering) -> None:
        """Raises a SteeringError if a steered layer was not reached."""
        if any(self.scales) and steering.layers - self.reached:
            missing = min(steering.layers - self.reached)
            raise SteeringError(f"the steered layer {missing} was skipped or replaced; run the whole decoder")


# The keywords that go down to the decoder, and to its layers.
ENDS, IDS, _FORWARD = "steering_ends", "steering_ids", "steering_forward"


def cache_of(given: dict[str, Any]) -> Any:
    """The cache among the arguments of a ``forward``."""
    # until 5.23 goes: the argument had another name
    return next((given[name] for name in ("cache", "past_key_values") if given.get(name) is not None), None)


def _refuse_packing(given: dict[str, Any]) -> None:
    """Several prompts in one row have several last tokens, which scope ``prompt`` cannot read."""
    position, packed = (
        given.get("position_ids"),
        any(given.get(n) is not None for n in ("block_table", "cu_seq_lens_q")),
    )
    if not packed and position is not None and given.get("attention_mask") is None:
        if position.ndim == 3:  # Qwen: the text's own positions come first of four
            position = position[0] if position.shape[0] == 4 else position[0, :, :0]
        packed = bool((position[:, 1:] <= position[:, :-1]).any())  # transformers packs rows that start again
    if packed:
        raise SteeringError("packed or paged rows have no last prompt token; give every prompt a row of its own")


# ----------------------------------------------------------------------------------------------------------- columns


@dataclass
class Columns:
    """Which columns of a forward are real, and which sequence of their row they belong to."""

    real: Tensor | None  # (b, s); None: all
    sequence: Tensor | None  # (b, s), counted from 0; None: each row is one

    @classmethod
    def of(cls, forward: Forward, mask: Any) -> "Columns":
        """Read from the mask that the attention of the layer was given.

        A real column sees itself. A sequence starts where no later column sees an earlier one, as in packed rows. Where
        a mask does not show this, all columns are real and of one sequence: too much is read rather than too little.
        """
        if not isinstance(mask, Tensor) or mask.ndim not in (2, 4) or forward.size == 1:
            return cls(None, None)
        s, seen = forward.size, mask if mask.dtype == torch.bool else mask > (0 if mask.ndim == 2 else -1000)
        # A static cache is longer than what it holds; of a sliding one the oldest columns are gone.
        static = isinstance(forward.past, Tensor) or mask.shape[-1] > forward.past + s
        start = forward.past if static else mask.shape[-1] - s
        own = torch.arange(s, device=mask.device) + start
        if mask.ndim == 2:
            return cls(seen.expand(forward.batch, -1)[:, own], None)
        seen = seen.any(dim=1).expand(forward.batch, -1, -1)  # (b, s, keys)
        real = seen.gather(2, own.expand(forward.batch, s).unsqueeze(2)).squeeze(2)
        order = torch.arange(1, s + 1, device=mask.device)
        last = (seen * order.unsqueeze(1)).amax(dim=1).cummax(dim=1).values  # who last sees this key or one before it
        before = last[:, (own - 1).clamp(min=0)]
        # Padding starts nothing, and what follows the padding of a row is no second sequence.
        starts = (before < order) & real & (real.cumsum(dim=1) > 1)
        return cls(real, starts.cumsum(dim=1))

    def cut(self, starts: Tensor) -> "Columns":
        """The same, where a sequence also starts at each of ``starts`` (b, s)."""
        more = starts.cumsum(dim=1)
        return Columns(self.real, more if self.sequence is None else self.sequence + more)

    def any(self, found: Tensor) -> Tensor:
        """Whether any real column of the same sequence is ``found``; (b, s)."""
        if self.real is not None:
            found = found & self.real
        if self.sequence is None:
            return found.any(dim=1, keepdim=True).expand_as(found)
        counts = torch.zeros(found.shape[0], 2 * found.shape[1] + 1, dtype=torch.int32, device=found.device)
        return counts.scatter_add(1, self.sequence, found.int()).gather(1, self.sequence) > 0


# -------------------------------------------------------------------------------------------- what a cache carries


@dataclass
class Carried:
    """What the cache of the gate's layer carries for its rows, from one forward to the next."""

    mark: str | None  # of the steering that read them
    seen: Any  # columns that have been read
    ends: tuple[int, ...] | None  # P of each row, if it was told
    openings: dict[int, Tensor]  # φ (b,) by request; of the running turn, where turns are read apart
    begun: dict[int, Tensor]  # the column (b,) where the running turn began, by such a request

    def rows(self, change: Callable[[Tensor], Tensor]) -> "Carried":
        """The same for other rows."""
        ends = None if self.ends is None else tuple(change(torch.tensor(self.ends)).tolist())
        openings, begun = ({i: change(value) for i, value in kept.items()} for kept in (self.openings, self.begun))
        return Carried(self.mark, self.seen, ends, openings, begun)

    def crop(self, seen: int) -> None:
        """Only the first ``seen`` columns are left. What an earlier turn was about is not known: it is sealed."""
        for index, column in self.begun.items():
            cut = column >= seen
            self.openings[index] = torch.where(cut, 1, self.openings[index])
            self.begun[index] = torch.where(cut, 0, column)
        self.seen = seen


_carrying: dict[type, type] = {}


def carrying(kind: type) -> type:
    """The class ``kind`` of a cache's layer, whose rows carry their seal wherever they are moved."""
    if kind in _carrying or kind in _carrying.values():
        return _carrying.get(kind, kind)

    def moved(name: str, change: Callable[[Tensor, Any], Tensor]) -> Callable[..., None]:
        native = getattr(kind, name)

        @functools.wraps(native)
        def method(self: Any, how: Any) -> None:
            native(self, how)
            if self.carried is not None:
                self.carried = self.carried.rows(lambda rows: change(rows, how))

        return method

    def select(rows: Tensor, index: Tensor) -> Tensor:
        return rows[index.to(rows.device)]

    def crop(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.crop(self, *args, **kwargs)  # type: ignore[attr-defined]
        if self.carried is not None:
            self.carried.crop(int(self.get_seq_length()))

    def reset(self: Any) -> None:
        kind.reset(self)  # type: ignore[attr-defined]
        self.carried = None

    changes: dict[str, Any] = {
        "reorder_cache": select,
        "batch_select_indices": select,
        "batch_repeat_interleave": lambda rows, times: rows.repeat_interleave(times, dim=0),
    }
    methods: dict[str, Any] = {name: moved(name, change) for name, change in changes.items() if hasattr(kind, name)}
    methods |= {name: method for name, method in (("crop", crop), ("reset", reset)) if hasattr(kind, name)}
    # No module holds this class by its name, so that pickle has to be told how to make it.
    methods["__reduce__"] = lambda self: (_blank, (carrying, kind), vars(self))
    _carrying[kind] = type(f"Carrying{kind.__name__}", (kind,), {"__module__": __name__, "carried": None, **methods})
    return _carrying[kind]


def _blank(made: Callable[[type], type], kind: type) -> Any:
    """An instance of a class made from ``kind``, without any content, for pickle to fill."""
    cls: Any = made(kind)
    return cls.__new__(cls)


def carry(layer: Any) -> None:
    """Make a layer of a cache carry its rows' seals."""
    if not hasattr(layer, "carried"):
        layer.__class__ = carrying(type(layer))


# ---------------------------------------------------------------------------------------------- the gate and the edit


class SteeringTensors(nn.Module):
    """The tensors that a request has at one layer, or that several share there."""

    projection: Tensor
    landmarks: Tensor

    def __init__(self, owner: int, layer: int, leaves: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.owner, self.layer, self.filled = owner, layer, False
        for leaf, shape in leaves.items():
            # NaN until they are filled, so that no forgotten tensor passes for a gate that never opens. Parameters, not
            # buffers: disk offload returned garbage for buffers in transformers 4.57.
            dtype, empty = (torch.int8, 0) if leaf == "projection" else (torch.float32, torch.nan)
            self.register_parameter(leaf, nn.Parameter(torch.full(shape, empty, dtype=dtype), requires_grad=False))

    def _apply(self, fn: Any, recurse: bool = True) -> "SteeringTensors":
        # .half(), .bfloat16() and .to(dtype) must not round the gate: bf16 moved the mean retain gate by 0.03.
        def keep_dtype(tensor: Tensor) -> Tensor:
            out: Tensor = fn(tensor)
            if tensor.is_meta and not out.is_meta:  # memory that nobody filled: to_empty
                self.filled = False
                return out.fill_(torch.nan if out.is_floating_point() else 0)
            return out if out.dtype == tensor.dtype else tensor.to(out.device)

        return super()._apply(keep_dtype, recurse)

    def check(self) -> None:
        """Whoever filled the tensors, they must be whole."""
        for leaf, tensor in self.named_parameters():
            if tensor.dtype not in (torch.float32, torch.int8):
                raise SteeringError(f"the steering was loaded as {tensor.dtype}; load the model in float32")
            whole = (tensor.abs() == 1) if leaf == "projection" else tensor.isfinite()
            if not torch.compiler.is_compiling() and not bool(whole.all()):
                raise SteeringError(f"steering tensor '{leaf}' at layer {self.layer} was never filled; load it again")
        self.filled = not torch.compiler.is_compiling()

    def read(self, states: Tensor) -> Tensor:
        """z (…, p) of fp32 states (…, d)."""
        return states @ self.projection.to(states.dtype).T if "projection" in self._parameters else states

    def near(self, unit: Tensor) -> Tensor:
        """‖ẑ − c_j‖ (…, J) of ẑ (…, p)."""
        # In fp64, because a product in fp32 is rounded to TF32 where the user allows that; without products it takes
        # ten times as long. Apple's devices have neither fp64 nor TF32.
        wide = torch.float32 if unit.device.type == "mps" else torch.float64
        return torch.cdist(unit.to(wide), self.landmarks.to(wide), compute_mode="use_mm_for_euclid_dist").float()


class KeptSteering(SteeringTensors):
    """What several gates at one layer share, so that however many they are it is read once."""

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """ẑ (…, p) of fp32 states (…, d), and its distances (…, J) to the landmarks."""
        if not self.filled:
            self.check()
        unit = nn.functional.normalize(self.read(states), dim=-1)
        return unit, self.near(unit)


class RequestSteering(SteeringTensors):
    """The tensors of one request at one layer: a gate that is read there, what to edit with, or both."""

    gate: Tensor
    weights: Tensor
    bandwidth: Tensor
    states: Tensor
    direction: Tensor

    def __init__(self, request: Request, layer: int, hidden_size: int) -> None:
        leaves = {leaf: shape for (where, leaf), shape in request.shapes(hidden_size).items() if where == layer}
        super().__init__(request.index, layer, leaves)
        self.request, self.edits = request, layer in request.layers
        self.reads = len(leaves) > int(self.edits)
        self.kept: tuple[KeptSteering, ...] = ()  # what its gate shares; in a tuple, so that it is no child of this

    def value(self, states: Tensor, shared: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """g (…) of fp32 states (…, d); ``shared`` is what the gate's :class:`KeptSteering` makes of them."""
        if self.request.kind == "linear":
            return (self.read(states) * self.gate).sum(-1)
        if shared is None:
            near = self.near(nn.functional.normalize(self.read(states), dim=-1))
        else:
            unit, of_kept = shared
            near = torch.cat([of_kept, self.near(unit)], dim=-1)
        return (torch.exp(-2 * near.square() / self.bandwidth) * self.weights).sum(-1)  # near (…, J)

    def all_landmarks(self) -> Tensor:
        """c (J, p), those that are shared first."""
        return torch.cat([*(kept.landmarks for kept in self.kept), self.landmarks])

    def signs(self) -> Tensor | None:
        """R (p, d); None: the gate reads the state itself."""
        owner = self.kept[0] if self.kept else self
        return owner.projection if self.request.projection else None

    def shaped(self, g: Tensor) -> Tensor:
        """φ(g). A gate that is NaN is open."""
        shape, threshold = self.request.shape, self.request.threshold
        if shape == "clip":
            return g.clamp(0, 1)
        if shape == "dead-zone":
            return torch.where(g < threshold, torch.zeros_like(g), g)
        if shape == "step":
            return (~(g < threshold)).to(g.dtype)
        return g

    def highest(self) -> float:
        """The highest g that the gate is known to reach: at a landmark, or for the largest states of half precision."""
        if self.request.kind == "linear":
            signs = self.signs()
            widest = 1 if signs is None else signs.shape[1]  # signs add so many coordinates up
            return float(self.gate.double().abs().sum()) * widest * torch.finfo(torch.float16).max
        marks = self.all_landmarks().double()
        unit = nn.functional.normalize(marks, dim=-1)
        near = torch.cdist(unit, marks, compute_mode="donot_use_mm_for_euclid_dist")  # (J, J)
        return float((torch.exp(-2 * near.square() / self.bandwidth.double()) @ self.weights.double()).max())

    def opens(self) -> bool:
        """Whether any state is known to open the gate."""
        highest = self.highest()
        return highest > 0 and highest >= self.request.threshold

    def opening(
        self,
        hidden: Tensor,
        forward: Forward,
        columns: Columns,
        before: Tensor | None,
        shared: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """φ (b, s) of each column, as the scope of the gate says; ``before`` (b,) is what the cache carries."""
        scope = self.request.scope
        if scope == "prompt" and before is not None:
            return before.unsqueeze(1).expand(-1, forward.size)
        if scope == "prompt":
            last = forward.last_of_prompt(columns, hidden.device)
            rows = torch.arange(forward.batch, device=hidden.device)
            opened = self.shaped(self.value(hidden[rows, last.clamp(min=0)].float()))
            return torch.where(last < 0, torch.zeros_like(opened), opened).unsqueeze(1).expand(-1, forward.size)
        opened = self.shaped(self.value(hidden.float(), shared))
        if scope == "token":
            return opened
        if not self.request.turn:
            sealed = columns.any(opened != 0)
            return (sealed if before is None else sealed | (before != 0).unsqueeze(1)).float()
        starts = forward.turns(self.request.turn, hidden.device)
        sealed = columns.cut(starts).any(opened != 0)
        if before is not None:  # what was said of the running turn ends where another begins
            sealed = sealed | ((before != 0).unsqueeze(1) & (starts.cumsum(dim=1) == 0))
        return sealed.float()

    def edited(self, state: Tensor, c: Tensor, forward: Forward, columns: Columns) -> Tensor:
        """The states (b, s, d) after the edit with c (b, s), in fp32 (or fp64). Where c is 0 they keep their value."""
        state = state if state.dtype == torch.float64 else state.float()
        request, step = self.request, forward.steps(state.device)
        aims = self.states if request.edit == "seal" else self.direction  # (K, d)
        aim = aims[0] if step is None else aims[step.clamp(0, request.steps - 1)]
        if request.scope == "prompt" and request.edit == "add" and step is not None:
            c = torch.where(step < request.steps, c, 0)  # the push ends with the last direction
            if not request.all_positions:
                here = torch.arange(forward.size, device=state.device)
                last = forward.last_of_prompt(columns, state.device).unsqueeze(1)
                c = torch.where((step > 0) | (here == last), c, 0)
        weight = c.unsqueeze(-1)
        if request.edit == "add":
            edited = state + weight * aim
        elif request.shape == "step" and forward.scales[request.index] == 1:
            edited = aim  # no weight is between 0 and 1
        else:  # exactly the constant where c is 1, whatever the state was; (1 − c) h + c m elsewhere
            edited = torch.where(weight == 1, aim, (1 - weight) * state + weight * aim)
        return torch.where(weight == 0, state, edited)

    def forward(
        self,
        hidden: Tensor,
        state: Tensor,
        forward: Forward,
        columns: Columns,
        before: Tensor | None,
        shared: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Read the gate if it is read here, in ``hidden``; edit ``state`` if this layer is edited; (b, s, d)."""
        if not self.filled:
            self.check()
        request = self.request
        if self.reads:
            forward.openings[request.index, self.layer] = self.opening(hidden, forward, columns, before, shared)
        if not self.edits:
            return state
        opening = forward.openings.get((request.index, request.gate_of(self.layer)))
        if opening is None:
            raise SteeringError(f"the gate at layer {request.gate_layer} was not read; run the whole decoder")
        c = opening.to(state.device) * forward.scales[request.index]
        return self.edited(state, c, forward, columns)


# ------------------------------------------------------------------------------------------------ layers and decoder


class LayerSteering(nn.ModuleDict):
    """All requests at one layer, by index."""

    def __init__(self, requests: Iterable[Request], layer: int, hidden_size: int, steering: Steering) -> None:
        super().__init__()
        self.layer, self.shared = layer, steering
        for request in requests:
            self[owner_name(request.index)] = child = RequestSteering(request, layer, hidden_size)
            if child.reads and request.kept is not None:
                child.kept = (self._of_kept(request.kept, hidden_size),)

    def _of_kept(self, kept: Kept, hidden_size: int) -> KeptSteering:
        name = owner_name(kept.owner)
        if name not in self:
            leaves = {leaf: shape for (_, leaf), shape in kept.shapes(hidden_size).items()}
            self[name] = KeptSteering(kept.owner, self.layer, leaves)
        module = self[name]
        assert isinstance(module, KeptSteering)
        return module

    def forward(self, hidden: Tensor, forward: Forward, mask: Any, cache: Any) -> Tensor:
        """The layer's output as the requests leave it. All gates read it as it was; the edits follow in order."""
        forward.reached.add(self.layer)
        children = [child for child in self.values() if isinstance(child, RequestSteering)]
        on = [child for child in children if forward.scales[child.request.index] != 0]
        if not on:
            return hidden
        columns = Columns.of(forward, mask)
        kept = [child.request for child in on if child.reads and child.request.scope != "token"]
        carried = self._carried(forward, cache, kept)
        shared: dict[int, tuple[Tensor, Tensor]] = {}
        with torch.autocast(hidden.device.type, enabled=False):
            state = hidden
            for child in on:
                before = None if carried is None else carried.openings.get(child.request.index)
                if child.reads and child.request.scope == "prompt" and forward.find_end_of_prompt():
                    before = None  # a prompt is read at its own end, whatever came earlier
                before = None if before is None else before.to(hidden.device)
                for of_several in child.kept:
                    if of_several.owner not in shared:
                        shared[of_several.owner] = of_several(hidden.float())
                looked = shared[child.kept[0].owner] if child.kept else None
                state = child(hidden, state, forward, columns, before, looked)
        self._carry(forward, cache, kept, carried)
        return state.to(hidden.dtype)  # what was not edited went there and back: its bits are the base's

    def _carried(self, forward: Forward, cache: Any, kept: list[Request]) -> Carried | None:
        """What this layer's cache carries for these rows; None: they begin here."""
        # A compiled graph cannot ask a static cache how much it holds.
        counted = not isinstance(forward.past, Tensor)
        if not kept or cache is None or (counted and forward.past == 0):
            return None
        layer = cache.layers[self.layer] if len(cache.layers) > self.layer else None
        found = getattr(layer, "carried", None)
        if found is None and not counted and hasattr(layer, "carried"):
            return None
        rows = {len(value) for value in found.openings.values()} if found is not None else {0}
        if (
            found is None
            or found.mark != self.shared.mark
            or (counted and int(found.seen) != forward.past)
            or any(request.index not in found.openings for request in kept)
            or rows != {forward.batch}
        ):
            raise SteeringError("the cache was not filled by this model, steered as now; run the prompt again")
        if forward.ends is None:
            forward.ends = found.ends
        return found

    def _carry(self, forward: Forward, cache: Any, kept: list[Request], before: Carried | None) -> None:
        """Leave what was read beside the cache of this layer."""
        if not kept or cache is None:
            return
        layer = cache.layers[self.layer]
        if not torch.compiler.is_compiling():
            carry(layer)
        elif not hasattr(layer, "carried"):
            return  # a cache made in a compiled graph: whoever uses it again is told to run the prompt again
        opened, begun = {}, {}
        for request in kept:
            opening = forward.openings[request.index, self.layer].detach()
            opened[request.index] = opening[:, -1] if request.turn else opening.amax(dim=1)
            if request.turn:
                order = torch.arange(1, forward.size + 1, device=opening.device)
                last = (forward.turns(request.turn, opening.device) * order).amax(dim=1) - 1  # −1: none begins here
                earlier = torch.zeros_like(last) if before is None else before.begun[request.index].to(last.device)
                begun[request.index] = torch.where(last < 0, earlier, last + forward.past)
        layer.carried = Carried(self.shared.mark, forward.past + forward.size, forward.ends, opened, begun)


def _names(native: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a method's arguments. To read them takes longer than many a layer."""
    return tuple(inspect.signature(native).parameters)[1:]


_steered: dict[tuple[type, bool], type] = {}


def steered_layer(base: type) -> type:
    """The decoder layer class ``base`` with the steering of its output.

    A subclass set on the existing layer keeps the names of its weights, which a wrapper module would change; its
    steering, where it has one, is the child module ``steering``.
    """
    names = _names(base.forward)  # type: ignore[attr-defined]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        this = kwargs.pop(_FORWARD, None)
        output = base.forward(self, *args, **kwargs)  # type: ignore[attr-defined]
        steering = self._modules.get("steering")
        if steering is None:
            return output
        if this is None:
            raise SteeringError("a decoder layer was called outside its decoder; call the model, or its decoder")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        mask, cache = given.get("attention_mask"), cache_of(given)
        if isinstance(output, tuple):  # until 4.57 goes: Qwen2.5-VL's layers return tuples
            return (steering(output[0], this, mask, cache), *output[1:])
        return steering(output, this, mask, cache)

    return _subclass(steered_layer, base, forward)


def steered_decoder(base: type) -> type:
    """The decoder class ``base``, which tells its layers what they need and checks that they were reached."""
    names = _names(base.forward)  # type: ignore[attr-defined]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        this = Forward.of(self.steering, given)
        output = base.forward(self, **given, **{_FORWARD: this})  # type: ignore[attr-defined]
        this.finish(self.steering)
        return output

    return _subclass(steered_decoder, base, forward)


def _subclass(make: Callable[[type], type], base: type, forward: Callable[..., Any]) -> type:
    """``base`` with another ``forward``; one class for each base, which pickle can make again.

    It keeps the name: transformers records hidden states, and accelerate keeps layers whole, by the names of classes.
    """
    key = (base, make is steered_decoder)
    if key not in _steered:
        methods = {
            "__module__": base.__module__,
            "forward": functools.wraps(base.forward)(forward),  # type: ignore[attr-defined]
            "__reduce__": lambda self: (_blank, (make, base), vars(self)),
        }
        _steered[key] = type(base.__name__, (base,), methods)
    return _steered[key]


def change_class(module: nn.Module, to: type) -> None:
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
        setattr(module, name, types.MethodType(to.forward, module))  # type: ignore[attr-defined]


def install(decoder: Any, steering: Steering, hidden_size: int) -> None:
    """Make a decoder and its layers steer, and give the steered ones their (still empty) tensors."""
    for index, layer in enumerate(decoder.layers):
        change_class(layer, steered_layer(type(layer)))
        here = [request for request in steering.requests if index in (*request.layers, request.gate_layer)]
        if here:
            layer.steering = LayerSteering(here, index, hidden_size, steering)
    change_class(decoder, steered_decoder(type(decoder)))
    decoder.steering = steering
