"""`mllmeraser demo`: all of it, on a small model."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from mllmeraser.commands.options import HELP, PATH, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest


@click.command(short_help="All of it, on a small model.", context_settings=HELP)
@click.argument("directory", type=PATH, default=Path("mllmeraser-demo"))
@overwrite_option("a directory that is not empty")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the questions, the folds and the landmarks.")
@output_options
def demo(directory: Path, overwrite: bool, seed: int, as_json: bool) -> None:
    """Forget eight fictitious people on a small LLaVA that knows a hundred, and show what became of it.

    Computes the paper's steering and ours, exports both, loads them in a fresh process that cannot import mllmeraser,
    and asks about the forgotten, everybody else and the rest of the world. Writes to DIRECTORY.
    """
    from mllmeraser.demo.run import run
    from mllmeraser.evaluation.table import plain_text

    outcome = run(directory, overwrite=overwrite, seed=seed)
    report(as_json, outcome.document(), [*plain_text(outcome.rows).splitlines(), "", *outcome.lines()])
    suggest(outcome.next_command())
