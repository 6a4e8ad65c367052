"""`mllmeraser evaluate`: measure what is forgotten and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from rich.markup import escape

import mllmeraser
from mllmeraser.commands.options import CAREFUL, HELP, PATH, model_options, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console
from mllmeraser.errors import VerificationError


@click.command(short_help="Measure what is forgotten and what is kept.", context_settings=HELP)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="NAME=FILE",
    help="A set to ask: its name, and a file of records or a benchmark's folder. May be repeated.",
)
@click.option(
    "--protocol",
    metavar="mllmeraser|mmunlearner|official|umu",
    default="mllmeraser",
    show_default=True,
    help="How records without a prompt of their own are worded (docs/evaluation.md).",
)
@click.option(
    "--examples", type=PATH, help="With --protocol official: the records that its worked examples are taken from."
)
@click.option(
    "--judge",
    metavar="facts|string",
    default="facts",
    show_default=True,
    help="What counts as telling an answer. facts: its distinctive words and numbers, in any order and notation "
    "(docs/records.md). string: the whole answer.",
)
@click.option(
    "--reference", metavar="NAME", help="The MODEL that never saw the forgotten. The others are compared with it."
)
@click.option(
    "--fit",
    multiple=True,
    type=PATH,
    help="Records that a MODEL was fitted on. They tell the leakage tier. May be repeated.",
)
@click.option(
    "--tier",
    type=click.Choice(["T0", "T1", "T2"]),
    help="What a fit may have used. T0: the records asked. T1: other records of the kept people. T2: nobody of the "
    "kept people. Needs --fit.",
)
@click.option(
    "--attacks",
    is_flag=True,
    help="Also ask in ways that try to get round the steering, and ask kept questions beside forgotten ones "
    "(docs/attacks.md).",
)
@click.option(
    "--attack-set",
    "attack_sets",
    multiple=True,
    metavar="NAME",
    help="A set to attack. May be repeated.  [default: all sets]",
)
@click.option(
    "--cross-check",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="Ask N records of each set again, by transformers' own loading, and judge them by plain substrings. Exit code "
    "3 if a figure differs by more than a point. 0: do not.",
)
@click.option(
    "--activations", is_flag=True, help="Also map the hidden states of steered MODELs, for a figure of the report."
)
@click.option(
    "--items",
    type=PATH,
    panel=CAREFUL,
    help="Write every question and reply here (JSON Lines). An interrupted run goes on from this file.",
)
@click.option("--output", "-o", type=PATH, help="The results to write (JSON).  [default: only print them]")
@overwrite_option("existing results")
@model_options
@output_options
def evaluate(
    models: tuple[str, ...], data: tuple[str, ...], output: Path | None, as_json: bool, **options: Any
) -> None:
    """Ask each MODEL the questions of the data, and score its replies.

    A MODEL is PATH or NAME=PATH. PATH is a checkpoint, a Hub id, or a file of replies that were given elsewhere
    (.jsonl, docs/evaluation.md). The first MODEL is the base: the others' replies are compared with its replies.
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
    if apart := [check for check in evaluation.file.cross_checks if not check.agrees]:
        raise VerificationError(
            f"{apart[0].model} on {apart[0].set}: {apart[0].accuracy:.1%} of the answers are right by our reader and "
            f"judge, {apart[0].again:.1%} when asked again by other means; neither figure can be trusted before the "
            "difference is understood (docs/evaluation.md)"
        )
    if output is not None:
        suggest(f"mllmeraser report {output} -o report.html")
