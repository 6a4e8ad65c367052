"""What ``compute`` can be told: one typed model behind the command's options, their help and ``recipe.toml``.

The command line wins over the recipe file, the file over the preset, and the preset over the defaults. Calibration
chooses only what is left ``auto``.
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
from mllmeraser.steering.forms import GateShape, Kind, NullSpace, Perturbation, RidgeScale, Scope

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Auto = Literal["auto"]
Parsed = TypeVar("Parsed")


def _parsed(parse: Callable[[str], Parsed]) -> PlainValidator:
    """Read a value as the command line or the file writes it; a value that has its type already passes."""

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


def _choice(metavar: str, description: str) -> Any:
    """What the help says of an option."""
    return Field(description=description, json_schema_extra={"metavar": metavar})


class Recipe(BaseModel):
    """Every choice of a computation. The descriptions are the help of the options."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    preset: Annotated[
        Literal["paper"] | None, _choice("paper", "The authors' choices; every other option still wins over them.")
    ] = None
    layers: Annotated[
        Literal["auto", "all"] | tuple[int, ...],
        _parsed(_layers),
        _choice("auto|all|3,4,7", "Decoder layers that are moved, counted from 0; auto: calibrated."),
    ] = "auto"
    direction: Annotated[
        Literal["auto", "matched", "harmful"],
        _choice(
            "auto|matched|harmful",
            "Where recall and erasure prompts come from. matched: the forget questions, plain and under an instruction "
            "to refuse; harmful: prompts that travel with the tool; auto: matched, unless the base refuses harmful "
            "ones more often.",
        ),
    ] = "auto"
    recall: Annotated[Path | None, _choice("FILE", "Your own records that the base answers; needs --erasure.")] = None
    erasure: Annotated[Path | None, _choice("FILE", "Your own records that the base refuses; needs --recall.")] = None
    refusal_instruction: Annotated[
        str | None,
        _choice("TEXT", "Instruction to refuse, for matched; default: the built-in one that this base obeys best."),
    ] = None
    perturbation: Annotated[
        Perturbation,
        _parsed(Perturbation.parse),
        _choice("KIND", "Change of recall pictures: none, noise:8/255, or pgd:8/255,2/255,10 (ε, step, iterations)."),
    ] = Perturbation()
    reply_steps: Annotated[
        Auto | int,
        _parsed(_auto_or_count),
        _choice(
            "auto|N", "How many positions get a direction (K). 1: the prompt only; auto: a whole refusal, or fewer."
        ),
    ] = "auto"
    prompt_positions: Annotated[
        Literal["auto", "all", "last"],
        _choice("auto|all|last", "Prompt positions that are moved; auto: the last, unless all of them erase more."),
    ] = "auto"
    gate: Annotated[
        Kind, _choice("linear|kernel", "What a gate looks at: the state, or its likeness to landmarks.")
    ] = "kernel"
    gate_scope: Annotated[
        Scope,
        _choice(
            "prompt|token",
            "prompt: the gate is read once, at the last prompt token; token: each position reads its own gate, for "
            "servers that prefill in chunks (vLLM).",
        ),
    ] = "prompt"
    gate_layer: Annotated[
        Literal["auto", "own"] | int,
        _parsed(_gate_layer),
        _choice(
            "auto|own|5", "own: each layer reads its own gate; 5: all share the gate of layer 5; auto: calibrated."
        ),
    ] = "auto"
    gate_shape: Annotated[
        Auto | GateShape,
        _parsed(_auto_or_shape),
        _choice("auto|SHAPE", "identity, clip, dead-zone[:0.3] or step[:0.5]; auto, or no threshold: calibrated."),
    ] = "auto"
    null_space: Annotated[
        Auto | NullSpace,
        _parsed(_auto_or_null_space),
        _choice(
            "auto|FORM:NUMBER",
            "How the retain set is left alone: ratio:0.3 (the paper's), energy:1e-3 or soft:1; auto: calibrated.",
        ),
    ] = "auto"
    ridge: Annotated[float, Field(ge=0), _choice("γ", "Ridge of the linear system that fits the gate.")] = 0.001
    ridge_scale: Annotated[
        RidgeScale, _choice("absolute|relative", "absolute: γ itself; relative: γ times the mean diagonal.")
    ] = "relative"
    landmarks: Annotated[int, Field(ge=2), _choice("N", "How many landmarks a kernel gate has at most.")] = 512
    bandwidth: Annotated[
        Auto | float,
        _parsed(_auto_or_number("share of the median squared distance", 0)),
        _choice("auto|0.6", "m² of a kernel gate, as a share of the median squared distance; auto: calibrated."),
    ] = "auto"
    strength: Annotated[
        Auto | float,
        _parsed(_auto_or_number("strength", -math.inf)),
        _choice("auto|1.0", "Strength λ, the same for all tasks; auto: calibrated."),
    ] = "auto"
    sequential: Annotated[
        bool,
        _choice("", "Fit the gate of each later layer on states that are steered at the layers before it."),
    ] = False
    augment: Annotated[
        bool,
        _choice(
            "", "Fit also on changed pictures, other words, begun replies and earlier turns: five times the passes."
        ),
    ] = False
    calibration_share: Annotated[
        float,
        Field(ge=0, le=0.5),
        _choice("0.3", "Share of the subjects that is held out in turn; 0 calibrates nothing."),
    ] = 0.3

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.recall is None) != (self.erasure is None):
            raise ValueError("give recall and erasure records together, or neither")
        if self.gate_scope == "token" and (
            self.reply_steps not in ("auto", 1)
            or self.prompt_positions == "last"
            or self.gate_layer not in ("auto", "own")
            or self.sequential
        ):
            raise ValueError(
                "gate-scope token moves every position by its own gate and one direction: leave out reply-steps, "
                "prompt-positions, gate-layer and sequential"
            )
        if self.calibration_share == 0 and (open_ := self.left_open):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in open_)
            raise ValueError(f"--calibration-share 0 calibrates nothing: give {options} a value")
        return self

    @property
    def left_open(self) -> tuple[str, ...]:
        """What is open and only calibration can choose; the rest has a value to begin with."""
        undecided = {
            "layers": self.layers == "auto",
            "gate_shape": self.gate_shape == "auto" or self.gate_shape.needs_threshold,
            "strength": self.strength == "auto",
        }
        return tuple(name for name, still in undecided.items() if still)


# The authors' settings. Some differ by model: they are LLaVA-1.5's, unless the family has a row below.
PAPER: Mapping[str, Any] = {
    "layers": "all",
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
    """The recipe: given values win over a ``recipe.toml``, and the file wins over the preset.

    Args:
        model_type: the family of the base; the preset depends on it.

    Raises:
        InputError: a key is unknown, or its value is not understood; the message names the option or the file.
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
    for key in ("recall", "erasure"):  # a path is relative to the file, as in every file of ours
        if isinstance(written.get(key), str):
            written[key] = file.parent / written[key]
    return written
