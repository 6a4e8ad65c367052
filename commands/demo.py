"""`mllmeraser demo`: run every step on a small model."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from mllmeraser.commands.options import HELP, PATH, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.errors import InputError


@click.command(short_help="Run every step on a small model.", context_settings=HELP)
@click.argument("directory", type=PATH, default=Path("mllmeraser-demo"))
@click.option(
    "--model",
    type=click.Choice(("toy", "smollm2")),
    default="toy",
    show_default=True,
    help="A LLaVA of three million parameters, or one on SmolLM2-135M-Instruct (docs/demo.md: what it needs).",
)
@overwrite_option("a directory that is not empty")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The seed of the questions, the folds and the landmarks.",
)
@click.option(
    "--requests",
    "of_requests",
    is_flag=True,
    help="Instead: the life of three requests in a ledger, one of them withdrawn, with their letters.",
)
@output_options
def demo(directory: Path, model: str, overwrite: bool, seed: int, of_requests: bool, as_json: bool) -> None:
    """Make a small LLaVA that knows a hundred fictitious people forget eight of them, and count the replies.

    The demo computes the paper's steering and ours and exports both. It loads them in a fresh process that cannot
    import mllmeraser. Then it asks about the forgotten people, the others and common knowledge. Everything is written
    to DIRECTORY, by default mllmeraser-demo. With --requests it shows the life of three requests instead.
    """
    if of_requests:
        if model != "toy":
            raise InputError("--requests lives on the toy alone: leave out --model")
        from mllmeraser.demo.requests import run_requests

        life = run_requests(directory, overwrite=overwrite, seed=seed)
        report(as_json, life.document(), life.lines())
        suggest(life.next_command())
        return
    from mllmeraser.demo.run import run
    from mllmeraser.evaluation.table import plain_text

    outcome = run(directory, model=model, overwrite=overwrite, seed=seed)
    report(as_json, outcome.document(), [*plain_text(outcome.rows).splitlines(), "", *outcome.lines()])
    suggest(outcome.next_command())
