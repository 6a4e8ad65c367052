"""Options that several commands share, each as a decorator, and the panels that group options in the help."""

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

# These panels come after the command's own options and the recipe's.
RUNNING, REPORTING, CAREFUL = "Running the model", "Output", "Careful: these replace files or show private data"
# The field of the recipe that begins each panel.
_OF_THE_RECIPE = {
    "preset": "Method",
    "layers": "Method",
    "direction": "Erasure direction",
    "gate": "Gate",
    "strength": "Strength and calibration",
}


def _batch_size(text: str) -> int:
    """``auto`` or a number: how many prompts a pass starts with (inference/passes.py halves what does not fit)."""
    if text == "auto":
        return AUTO_BATCH_SIZE
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise click.BadParameter(f"{text!r} is not auto or a number of prompts, at least 1")


def _set_quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    console.quiet = value


def output_options(command: Command) -> Command:
    """Add the options that every command has (``--json``, ``--quiet``, ``--debug``), and put its panels in order."""
    for panel in (CAREFUL, REPORTING, RUNNING, *reversed(_OF_THE_RECIPE.values()), "Options"):
        command = click.option_panel(panel)(command)
    for option in (
        click.option(
            "--debug", is_flag=True, expose_value=False, panel=REPORTING, help="Show the traceback of an error."
        ),
        click.option(
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            panel=REPORTING,
            help="Print nothing but errors on stderr.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, panel=REPORTING, help="Print the result as one JSON document on stdout."
        ),
    ):
        command = option(command)
    return command


def model_options(command: Command) -> Command:
    """Add the options that say how a model is run."""
    for option in (
        click.option(
            "--batch-size",
            type=_batch_size,
            metavar="auto|N",
            default="auto",
            show_default=True,
            panel=RUNNING,
            help=f"Prompts in one forward pass. auto: {AUTO_BATCH_SIZE}. Halved when memory runs out.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            panel=RUNNING,
            help="The number format of the weights. auto: as they are stored.",
        ),
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            panel=RUNNING,
            help="A torch device, for example cpu or cuda. auto: spread the model over devices, memory and disk.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            panel=RUNNING,
            help="The seed of everything that is random.",
        ),
    ):
        command = option(command)
    return command


def overwrite_option(what: str) -> Callable[[Command], Command]:
    """Add the permission to replace ``what``."""
    return click.option("--overwrite", is_flag=True, panel=CAREFUL, help=f"Replace {what}.")


def request_id_option(command: Command) -> Command:
    """Add the name of the request in a bundle."""
    return click.option(
        "--request-id",
        default="request-1",
        show_default=True,
        help="The name of the request. Bundle and checkpoint show it, so it must not name a person.",
    )(command)


def link_option(command: Command) -> Command:
    """Add the choice of how large files come into the output."""
    return click.option(
        "--link",
        type=click.Choice(["auto", "copy", "hard", "sym"]),
        default="auto",
        show_default=True,
        help="How weights come into the output. auto: share disk blocks (reflink), else hard-link (checkpoints only), "
        "else copy. copy, hard, sym: this way only. After sym the output works on this machine only.",
    )(command)


def hash_option(command: Command) -> Command:
    """Add the choice of when to hash weights whose sha256 is not known."""
    return click.option(
        "--hash",
        "hash_weights",
        type=click.Choice(["now", "later"]),
        default="now",
        show_default=True,
        help="When to hash weights whose sha256 neither the Hub nor the bundle knows. later: not in this run; verify "
        "then needs --base, and push refuses the directory.",
    )(command)


def onnx_toggle_option(command: Command) -> Command:
    """Add the choice of how steered graphs are switched off."""
    return click.option(
        "--onnx-toggle",
        type=click.Choice(["constant", "input"]),
        default="constant",
        show_default=True,
        help="How ONNX graphs are switched off. constant: a second graph beside each is the base's. input: each graph "
        "needs an input steering_strength, where 1 steers and 0 is the base.",
    )(command)


def compute_options(command: Command) -> Command:
    """Add the choices of `compute`: one option for each field of the recipe, with the field's description as help."""
    for name, field in reversed(Recipe.model_fields.items()):
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        panel = _panel_of(name)
        default = "" if field.default is None else f"  [default: {field.default}]"
        if isinstance(field.default, bool):
            flag = f"--{name.replace('_', '-')}"
            if field.default:
                flag += f"/--no-{name.replace('_', '-')}"
            command = click.option(flag, is_flag=True, default=None, panel=panel, help=field.description)(command)
            continue
        command = click.option(
            f"--{name.replace('_', '-')}",
            type=PATH if extra["metavar"] == "FILE" else str,
            metavar=str(extra["metavar"]),
            panel=panel,
            help=f"{field.description}{default}",
        )(command)
    recipe_file = "A TOML file of the options below, dashes as underscores. Options on the command line win."
    return click.option("--recipe", type=PATH, panel=_panel_of("preset"), help=recipe_file)(command)


def _panel_of(name: str) -> str:
    """The fields of the recipe are in the order of the method; a field belongs to the last panel that began before."""
    names = list(Recipe.model_fields)
    began = [first for first in _OF_THE_RECIPE if names.index(first) <= names.index(name)]
    return _OF_THE_RECIPE[began[-1]]


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without the choices of :func:`compute_options` that were not given."""
    return {name: value for name, value in options.items() if name not in Recipe.model_fields or value is not None}
