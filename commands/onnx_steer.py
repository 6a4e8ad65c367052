"""`mllmeraser onnx-steer`: steer existing ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, link_option, onnx_toggle_option, output_options, overwrite_option
from mllmeraser.commands.reporting import report_graphs


@click.command("onnx-steer", short_help="Steer existing ONNX graphs.", context_settings=HELP)
@click.argument("model_dir", type=PATH)
@click.option(
    "--bundle",
    "bundles",
    type=PATH,
    multiple=True,
    required=True,
    help="A bundle that compute wrote. May be repeated: the graphs then hold several requests.",
)
@click.option("--output", "-o", type=PATH, required=True, help="The directory to write.")
@onnx_toggle_option
@link_option
@overwrite_option("a directory that is not empty")
@output_options
def onnx_steer(
    model_dir: Path,
    bundles: tuple[Path, ...],
    output: Path,
    onnx_toggle: Literal["constant", "input"],
    link: Literal["auto", "copy", "hard", "sym"],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Insert the steering into every decoder graph of the directory MODEL_DIR.

    Weights are not read, and other graphs are not changed.
    """
    steered = mllmeraser.onnx_steer(model_dir, bundles, output, toggle=onnx_toggle, link=link, overwrite=overwrite)
    report_graphs(as_json, steered, str(model_dir))
