"""`mllmeraser inspect`: show what a bundle or a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, output_options
from mllmeraser.commands.reporting import report


@click.command(short_help="Show what a bundle or a checkpoint holds.", context_settings=HELP)
@click.argument("path", type=PATH)
@output_options
def inspect(path: Path, as_json: bool) -> None:
    """Show what PATH, a bundle or an exported directory, holds: base, requests, layers, strengths, hashes."""
    from mllmeraser.exporter.inspect import summary

    document = mllmeraser.inspect(path)
    report(as_json, document, summary(document))
