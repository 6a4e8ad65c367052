"""`mllmeraser interference`: measure what requests do to each other."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, model_options, output_options
from mllmeraser.commands.reporting import report, suggest


@click.command(short_help="Measure what requests do to each other.", context_settings=HELP)
@click.argument("base")
@click.option(
    "--bundle", "bundles", type=PATH, multiple=True, required=True, help="A bundle. Repeat the option for each bundle."
)
@click.option(
    "--forget",
    type=PATH,
    multiple=True,
    required=True,
    help="The forget set of a bundle. Repeat the option, in the order of the bundles.",
)
@model_options
@output_options
def interference(
    base: str,
    bundles: tuple[Path, ...],
    forget: tuple[Path, ...],
    device: str,
    dtype: str,
    batch_size: int,
    seed: int,
    as_json: bool,
) -> None:
    """Measure how often the gates of each request open on the forget set of every other request.

    The records are run on BASE, which is not steered.
    """
    found = mllmeraser.interference(base, bundles, forget, device=device, dtype=dtype, batch_size=batch_size)
    report(as_json, found.document(), found.lines())
    suggest(f"mllmeraser export {base} {' '.join(f'--bundle {path}' for path in bundles)} -o DIRECTORY")
