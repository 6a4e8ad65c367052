"""Options that several commands share, each a decorator, and the panels of the help they stand in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from mllmeraser.console import console
from mllmeraser.steering.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
HELP = {"help_option_names": ["-h", "--help"]}  # context settings of a command

AUTO_BATCH_SIZE = 64

# Panels of the help, after the command's own options and those of the recipe.
RUNNING, REPORTING, CAREFUL = "How the model is run", "What is said", "Careful: these replace or expose"
# Which field of the recipe begins which panel.
_OF_THE_RECIPE = {
    "preset": "Method",
    "layers": "Method",
    "direction": "Erasure direction",
    "gate": "Gate",
    "strength": "Strength and calibration",
}


def _batch_size(text: str) -> int:
    """``auto`` or a number; either is where passes start from, and inference/passes.py halves what does not fit."""
    if text == "auto":
        return AUTO_BATCH_SIZE
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise click.BadParameter(f"{text!r} is not auto or a number of prompts, at least 1")


def _set_quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    console.quiet = value


def output_options(command: Command) -> Command:
    """What every command has: a document for programs, silence, tracebacks; and the order of its panels."""
    for panel in (CAREFUL, REPORTING, RUNNING, *reversed(_OF_THE_RECIPE.values()), "Options"):
        command = click.option_panel(panel)(command)
    for option in (
        click.option(
            "--debug", is_flag=True, expose_value=False, panel=REPORTING, help="Show a traceback when something fails."
        ),
        click.option(
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            panel=REPORTING,
            help="Say nothing on stderr but what went wrong.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, panel=REPORTING, help="Print one JSON document on stdout, nothing else."
        ),
    ):
        command = option(command)
    return command


def model_options(command: Command) -> Command:
    """How a model is run."""
    for option in (
        click.option(
            "--batch-size",
            type=_batch_size,
            metavar="auto|N",
            default="auto",
            show_default=True,
            panel=RUNNING,
            help=f"Prompts a forward; auto: {AUTO_BATCH_SIZE}. Halved where memory does not suffice.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            panel=RUNNING,
            help="auto: as stored.",
        ),
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            panel=RUNNING,
            help="A torch device, or auto to spread the model.",
        ),
        click.option(
            "--seed", type=int, default=0, show_default=True, panel=RUNNING, help="Of everything that is random."
        ),
    ):
        command = option(command)
    return command


def overwrite_option(what: str) -> Callable[[Command], Command]:
    """Permission to replace ``what`` is there."""
    return click.option("--overwrite", is_flag=True, panel=CAREFUL, help=f"Replace {what}.")


def link_option(command: Command) -> Command:
    """How large files come into a directory without being copied."""
    return click.option(
        "--link",
        type=click.Choice(["auto", "copy", "hard", "sym"]),
        default="auto",
        show_default=True,
        help="How the given weights come in; auto: reflink, else hard link (checkpoints only), else copy.",
    )(command)


def hash_option(command: Command) -> Command:
    """When weights are hashed that nothing is known of."""
    return click.option(
        "--hash",
        "hash_weights",
        type=click.Choice(["now", "later"]),
        default="now",
        show_default=True,
        help="Weights whose sha256 neither the Hub nor the bundle says: read them, or leave it out of the manifest.",
    )(command)


def onnx_toggle_option(command: Command) -> Command:
    """How steered graphs are switched off."""
    return click.option(
        "--onnx-toggle",
        type=click.Choice(["constant", "input"]),
        default="constant",
        show_default=True,
        help="ONNX: a constant strength and a twin graph of the base, or a required input steering_strength.",
    )(command)


def compute_options(command: Command) -> Command:
    """The choices of `compute`: one option for each field of the recipe, with its description as help."""
    for name, field in reversed(Recipe.model_fields.items()):
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        panel = _panel_of(name)
        default = "" if field.default in (None, False) else f"  [default: {field.default}]"
        if field.default is False:
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, is_flag=True, default=None, panel=panel, help=field.description)(command)
            continue
        command = click.option(
            f"--{name.replace('_', '-')}",
            type=PATH if extra["metavar"] == "FILE" else str,
            metavar=str(extra["metavar"]),
            panel=panel,
            help=f"{field.description}{default}",
        )(command)
    recipe_file = "A recipe.toml of these options, dashes as underscores."
    return click.option("--recipe", type=PATH, panel=_panel_of("preset"), help=recipe_file)(command)


def _panel_of(name: str) -> str:
    """Fields of the recipe stand in the order of the method: each belongs to the last part that began before it."""
    names = list(Recipe.model_fields)
    began = [first for first in _OF_THE_RECIPE if names.index(first) <= names.index(name)]
    return _OF_THE_RECIPE[began[-1]]


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of the options of :func:`compute_options`, and the other options, which have defaults."""
    return {name: value for name, value in options.items() if name not in Recipe.model_fields or value is not None}
