"""The choices of `compute`: one typed model behind the command's options, their help, and `recipe.toml`.

The command line wins over the recipe file, the file over the preset, and the preset over the defaults. Calibration
chooses only what is still ``auto``.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from mllmeraser.errors import InputError
from mllmeraser.steering.forms import Edit, GateShape, Kind, NullSpace, Perturbation, RidgeScale, Scope

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Auto = Literal["auto"]
Parsed = TypeVar("Parsed")


def _parsed(parse: Callable[[str], Parsed]) -> PlainValidator:
    """Read a value as the command line or the file writes it. A value that is typed already passes."""

    def read(value: object) -> object:
        if isinstance(value, list):
            return parse(",".join(map(str, value)))
        if isinstance(value, str | int | float):
            return parse(str(value))
        if isinstance(value, tuple):  # typed already
            return value
        raise ValueError(f"{value!r} is not understood")

    return PlainValidator(read)


def _layers(text: str) -> Literal["auto", "all"] | tuple[int, ...]:
    if text == "auto":
        return "auto"
    if text == "all":
        return "all"
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"{text!r} is not auto, all, or layer indices such as 3,4,7")
    return tuple(sorted({int(part) for part in text.split(",")}))


def _gate_layer(text: str) -> Literal["auto", "own"] | int:
    if text == "auto":
        return "auto"
    if text == "own":
        return "own"
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not auto, own, or a layer index such as 5")
    return int(text)


def _auto_or_number(what: str, lowest: float) -> Callable[[str], Auto | float]:
    def parse(text: str) -> Auto | float:
        if text == "auto":
            return "auto"
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not lowest < number < math.inf:
            raise ValueError(f"{text!r} is not auto or a {what} above {lowest:g}")
        return number

    return parse


def _auto_or_shape(text: str) -> Auto | GateShape:
    return "auto" if text == "auto" else GateShape.parse(text)


def _auto_or_null_space(text: str) -> Auto | NullSpace:
    return "auto" if text == "auto" else NullSpace.parse(text)


def _auto_or_count(text: str) -> Auto | int:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not auto or a number of positions, at least 1")
    return int(text)


def _auto_or_dimensions(text: str) -> Auto | int:
    if text == "auto":
        return "auto"
    if text == "none":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not auto, none or a number of projections, at least 1")
    return int(text)


def _choice(metavar: str, description: str) -> Any:
    """The metavar and the help of the option."""
    return Field(description=description, json_schema_extra={"metavar": metavar})


class Recipe(BaseModel):
    """Every choice of a computation. The descriptions are the help of the options."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    preset: Annotated[
        Literal["paper"] | None, _choice("paper", "paper: the authors' choices. Options given beside it win.")
    ] = None
    layers: Annotated[
        Literal["auto", "all"] | tuple[int, ...],
        _parsed(_layers),
        _choice(
            "auto|all|3,4,7",
            "The decoder layers to steer, counted from 0. all: every layer. auto: calibration chooses them.",
        ),
    ] = "auto"
    direction: Annotated[
        Literal["auto", "matched", "harmful"],
        _choice(
            "auto|matched|harmful",
            "Where the prompts come from that the base answers (recall) and refuses (erasure). matched: the forget "
            "questions, plain and under an instruction to refuse. harmful: mild and harmful requests that come with "
            "the tool. auto: matched, unless the base refuses the harmful ones more often.",
        ),
    ] = "auto"
    recall: Annotated[
        Path | None, _choice("FILE", "Your own records that the base answers, instead of --direction. Needs --erasure.")
    ] = None
    erasure: Annotated[Path | None, _choice("FILE", "Your own records that the base refuses. Needs --recall.")] = None
    refusal_instruction: Annotated[
        str | None,
        _choice(
            "TEXT",
            "The instruction to refuse, for --direction matched.  [default: the one of ours that this base obeys best]",
        ),
    ] = None
    perturbation: Annotated[
        Perturbation,
        _parsed(Perturbation.parse),
        _choice(
            "KIND",
            "How the pictures of recall prompts are changed. none: not at all. noise:8/255: random noise of size ε. "
            "pgd:8/255,2/255,10: an attack with ε, step and iterations.",
        ),
    ] = Perturbation()
    reply_steps: Annotated[
        Auto | int,
        _parsed(_auto_or_count),
        _choice(
            "auto|N",
            "K, the number of positions with a direction of their own. 1: the prompt only. N: also the first N − 1 "
            "positions of the reply. auto: the length of a refusal, at most 16, or fewer if calibration prefers that.",
        ),
    ] = "auto"
    prompt_positions: Annotated[
        Literal["auto", "all", "last"],
        _choice(
            "auto|all|last",
            "The positions of the prompt to steer. last: its last token. all: every token. auto: the last, unless "
            "calibration finds that all erase more.",
        ),
    ] = "auto"
    gate: Annotated[
        Kind,
        _choice(
            "linear|kernel",
            "What a gate reads. linear: the hidden state, as in the paper. kernel: how near the state is to landmarks, "
            "which are centres of forget and of retain states.",
        ),
    ] = "kernel"
    gate_scope: Annotated[
        Scope,
        _choice(
            "conversation|prompt|token",
            "Where a gate is read. conversation: at every token of prompt and reply; the first that opens it seals the "
            "conversation. prompt: once, at the last prompt token, as in the paper. token: at every token, for this "
            "token alone; for servers that prefill in chunks (vLLM).",
        ),
    ] = "conversation"
    gate_fit: Annotated[
        Literal["auto", "positions", "end"],
        _choice(
            "auto|positions|end",
            "Where a gate is fitted on what is to be forgotten. positions: at tokens all over the prompt. end: at its "
            "last token. auto: calibration chooses for --gate-scope conversation; else end.",
        ),
    ] = "auto"
    edit: Annotated[
        Edit,
        _choice(
            "seal|add",
            "What an open gate does to the steered layers. seal: it sets the states to those before a refusal, so that "
            "nothing about the prompt is left. add: it pushes them along a direction, as in the paper.",
        ),
    ] = "seal"
    until: Annotated[
        Literal["conversation", "turn"],
        _choice(
            "conversation|turn",
            "How long a seal lasts. conversation: to the end of it. turn: until the user's next turn, which is read by "
            "itself. Needs --gate-scope conversation.",
        ),
    ] = "conversation"
    gate_layer: Annotated[
        Literal["auto", "own"] | int,
        _parsed(_gate_layer),
        _choice(
            "auto|own|5",
            "Which gate a layer follows. own: each layer its own. 5: all layers the gate of layer 5. auto: calibration "
            "chooses.",
        ),
    ] = "auto"
    gate_shape: Annotated[
        Auto | GateShape,
        _parsed(_auto_or_shape),
        _choice(
            "auto|SHAPE",
            "How the gate's number g becomes the factor on the direction. identity: g. clip: g limited to [0, 1]. "
            "dead-zone:0.3: 0 below 0.3, else g. step:0.5: 0 below 0.5, else 1. auto, or no number: calibration "
            "chooses.",
        ),
    ] = "auto"
    null_space: Annotated[
        Auto | NullSpace,
        _parsed(_auto_or_null_space),
        _choice(
            "auto|FORM:NUMBER",
            "How the gate is kept closed on the retain set. ratio:0.3: it uses the 30 % of directions that hold the "
            "least retain energy, as in the paper. energy:1e-3: those that together hold at most this share of it. "
            "soft:1: all directions, with this weight on the retain set. auto: calibration chooses a soft one.",
        ),
    ] = "auto"
    ridge: Annotated[float, Field(ge=0), _choice("γ", "The ridge of the linear system that gives the gate.")] = 0.001
    ridge_scale: Annotated[
        RidgeScale,
        _choice(
            "absolute|relative",
            "The scale of the ridge. absolute: γ itself. relative: γ times the mean diagonal of the system.",
        ),
    ] = "relative"
    projection: Annotated[
        Auto | int,
        _parsed(_auto_or_dimensions),
        _choice(
            "auto|none|64",
            "The random projections of the state that a gate reads. none: the state itself. auto: 128 for --gate-scope "
            "conversation where the state is wider than 512, else none.",
        ),
    ] = "auto"
    landmarks: Annotated[int, Field(ge=2), _choice("N", "The most landmarks that a kernel gate may have.")] = 1024
    bandwidth: Annotated[
        Auto | float,
        _parsed(_auto_or_number("share of the median squared distance", 0)),
        _choice(
            "auto|0.6",
            "The bandwidth m² of a kernel gate, as a share of the median squared distance. auto: calibration chooses.",
        ),
    ] = "auto"
    strength: Annotated[
        Auto | float,
        _parsed(_auto_or_number("strength", -math.inf)),
        _choice("auto|1.0", "λ, the factor on the direction; 0 is the base. auto: calibration chooses."),
    ] = "auto"
    sequential: Annotated[
        bool,
        _choice("", "Fit the gate of each layer on states that the layers before it have steered."),
    ] = False
    augment: Annotated[
        bool,
        _choice(
            "",
            "Also fit on up to four variants of each record: changed pictures, other words, begun replies, earlier "
            "turns, system turns. This takes up to five times the passes.  [default: --augment]",
        ),
    ] = True
    calibration_share: Annotated[
        float,
        Field(ge=0, le=0.5),
        _choice(
            "0.1",
            "The share of subjects that calibration holds out, in turn. 0: no calibration; then give --layers, "
            "--gate-shape, and for --edit add --strength.",
        ),
    ] = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.recall is None) != (self.erasure is None):
            raise ValueError("give recall and erasure records together, or neither")
        if self.gate_scope == "token" and (
            self.reply_steps not in ("auto", 1)
            or self.prompt_positions == "last"
            or self.gate_layer not in ("auto", "own")
        ):
            raise ValueError(
                "gate-scope token moves every position by its own gate and one direction: leave out reply-steps, "
                "prompt-positions and gate-layer"
            )
        if self.sequential and self.gate_scope != "prompt":
            raise ValueError("sequential fits a gate on states at the last prompt token: give gate-scope prompt")
        if self.gate_fit == "positions" and self.gate_scope != "conversation":
            raise ValueError("gate-fit positions needs gate-scope conversation")
        if self.until == "turn" and self.gate_scope != "conversation":
            raise ValueError("until turn needs gate-scope conversation; the other scopes keep no seal")
        shape = self.gate_shape
        if self.gate_scope == "conversation" and shape != "auto" and shape.name != "step":
            raise ValueError(
                "gate-scope conversation seals a row or does not: give gate-shape step, or gate-scope prompt"
            )
        if self.edit == "seal" and self.prompt_positions == "last":
            raise ValueError("edit seal sets every column: leave out prompt-positions")
        if self.calibration_share == 0 and (open_ := self.left_open):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in open_)
            raise ValueError(f"--calibration-share 0 calibrates nothing: give {options} a value")
        return self

    @property
    def left_open(self) -> tuple[str, ...]:
        """The choices that only calibration can make; all others have a value to begin with."""
        undecided = {
            "layers": self.layers == "auto",
            "gate_shape": self.gate_shape == "auto" or self.gate_shape.needs_threshold,
            "strength": self.strength == "auto" and self.edit == "add",
        }
        return tuple(name for name, still in undecided.items() if still)


# The authors' settings. Some differ by model: these are LLaVA-1.5's, and a family may have a row below.
PAPER: Mapping[str, Any] = {
    "layers": "all",
    "gate_scope": "prompt",
    "edit": "add",
    "augment": False,
    "direction": "harmful",
    "perturbation": "pgd:8/255,2/255,10",
    "reply_steps": 1,
    "prompt_positions": "all",
    "gate": "linear",
    "gate_layer": "own",
    "gate_shape": "identity",
    "null_space": "ratio:0.3",
    "ridge": 0.1,
    "ridge_scale": "absolute",
}
PAPER_BY_FAMILY: Mapping[str, Mapping[str, Any]] = {"qwen2_5_vl": {"null_space": "ratio:0.4", "ridge": 1.0}}
PAPER_SKIPPED_LAYERS = (0, 17)  # their code gives layer 0 strength 0 and never reaches layer 17


def make_recipe(model_type: str, given: Mapping[str, Any], file: Path | None = None) -> Recipe:
    """The recipe: given values win over those of a ``recipe.toml``, and these over the preset's.

    Args:
        model_type: the family of the base; the preset depends on it.
        given: values by field name.
        file: the ``recipe.toml``.

    Raises:
        InputError: a key is unknown or its value is not understood; the message names the option or the file.
    """
    written = {} if file is None else _read(file)
    values = {**written, **given}
    if values.get("preset") == "paper":
        values = {**PAPER, **PAPER_BY_FAMILY.get(model_type, {}), **values}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        if file is not None and key in written and key not in given:
            raise InputError(f"{file}: {key}: {message}") from None
        raise InputError(f"--{key.replace('_', '-')}: {message}" if key else message) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{file}: no such file; a recipe holds the options of compute, one a line") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file}: not valid TOML ({error})") from None
    for key in ("recall", "erasure"):  # a path in a file of ours is relative to that file
        if isinstance(written.get(key), str):
            written[key] = file.parent / written[key]
    return written
