"""`mllmeraser inspect`: what is in a bundle or a checkpoint."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, output_options
from mllmeraser.commands.reporting import report


@click.command(short_help="What is in a bundle or a checkpoint.", context_settings=HELP)
@click.argument("path", type=PATH)
@output_options
def inspect(path: Path, as_json: bool) -> None:
    """Show what is in a bundle file or an exported directory."""
    from mllmeraser.exporter.inspect import summary

    document = mllmeraser.inspect(path)
    report(as_json, document, summary(document))
