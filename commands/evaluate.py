"""`mllmeraser evaluate`: what is forgotten, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from rich.markup import escape

import mllmeraser
from mllmeraser.commands.options import CAREFUL, HELP, PATH, model_options, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console


@click.command(short_help="What is forgotten, and what is kept.", context_settings=HELP)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="NAME=FILE",
    help="Records to ask, or a benchmark's folder; may be repeated.",
)
@click.option("--protocol", default="mllmeraser", show_default=True, help="The wording of records without a prompt.")
@click.option("--examples", type=PATH, help="Where --protocol official takes its worked examples from.")
@click.option("--reference", metavar="NAME", help="The MODEL that never saw the forgotten, to compare the others with.")
@click.option("--fit", multiple=True, type=PATH, help="Records a MODEL was fitted on; may be repeated.")
@click.option(
    "--tier",
    type=click.Choice(["T0", "T1", "T2"]),
    help="How far the data must be from the fit: T0 the same records, T1 the same people, T2 other people kept.",
)
@click.option("--attacks", is_flag=True, help="Also try to get the answers by other ways (docs/attacks.md).")
@click.option(
    "--attack-set",
    "attack_sets",
    multiple=True,
    metavar="NAME",
    help="Attack this set of the data.  [default: all sets]",
)
@click.option("--activations", is_flag=True, help="Also map the hidden states of steered MODELs, for the report.")
@click.option(
    "--items",
    type=PATH,
    panel=CAREFUL,
    help="Write every question and reply here (JSON Lines); sensitive. A killed run goes on from there.",
)
@click.option("--output", "-o", type=PATH, help="Write the results here (JSON).")
@overwrite_option("results that are there")
@model_options
@output_options
def evaluate(
    models: tuple[str, ...], data: tuple[str, ...], output: Path | None, as_json: bool, **options: Any
) -> None:
    """Ask MODELs (NAME=PATH or PATH; the first is the base) the records of the data, and score the replies.

    A MODEL may also be a file of answers given elsewhere (.jsonl, docs/evaluation.md).
    """
    from mllmeraser.bundle.limits import HARNESS_WARNING
    from mllmeraser.inference.processes import processes

    console.quiet = console.quiet or not processes().leads
    evaluation = mllmeraser.evaluate(models, data, output, **options)
    if not processes().leads:
        return
    document = evaluation.document()
    report(as_json, document, evaluation.lines())
    if document["gates"]:
        console.print(f"[yellow]note:[/] {escape(HARNESS_WARNING)}", soft_wrap=True)
    if output is not None:
        suggest(f"mllmeraser report {output} -o report.html")
