"""`mllmeraser records`: show records with their facts, so that a person can correct them."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import CAREFUL, HELP, PATH, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest


@click.command(short_help="Show records and what must not be told.", context_settings=HELP)
@click.argument("data", type=PATH)
@click.option(
    "--output",
    "-o",
    type=PATH,
    panel=CAREFUL,
    help="Write the records with their facts here (JSON Lines), to be corrected. It holds the answers.  "
    "[default: only print them]",
)
@overwrite_option("existing records")
@output_options
def records(data: Path, output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Show the records of DATA, a file or a benchmark's folder, each with its facts: what must not be told.

    A reply that tells a fact tells the answer. Facts that a record does not give are derived from all of DATA. If they
    are wrong, write them with -o, correct the key facts there, and give that file to the other commands.
    """
    shown = mllmeraser.records(data, output, overwrite=overwrite)
    report(as_json, shown.document(), shown.lines())
    if output is not None:
        suggest(f"correct the facts in {output}; then mllmeraser evaluate MODEL --data {output}")
