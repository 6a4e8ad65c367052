"""`mllmeraser report`: write one page about what an evaluation found."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import CAREFUL, HELP, PATH, output_options, overwrite_option
from mllmeraser.commands.reporting import report as say


@click.command(short_help="Write one page about the results.", context_settings=HELP)
@click.argument("results", nargs=-1, required=True, type=PATH, metavar="RESULTS...")
@click.option("--output", "-o", type=PATH, help="The page to write. Without it, md and json go to stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "json"]),
    default="html",
    show_default=True,
    help="html: one file that needs no network and no script. md, json: the same words and numbers.",
)
@click.option(
    "--forget-set",
    "forgotten",
    multiple=True,
    metavar="NAME",
    help="A set about the forgotten. May be repeated.  [default: sets whose name begins with forget or test]",
)
@click.option(
    "--calibration",
    type=PATH,
    metavar="FILE",
    help="Also show this calibration: calibration.json of `compute --work-dir`, or what `compute --json` printed.",
)
@click.option("--figures", type=PATH, metavar="DIRECTORY", help="Also write every figure here, as SVG and PNG.")
@click.option(
    "--items",
    type=PATH,
    metavar="FILE",
    help="The replies that `evaluate --items` wrote. --include-samples shows them.",
)
@click.option(
    "--include-samples", is_flag=True, panel=CAREFUL, help="Show questions and replies side by side. Needs --items."
)
@overwrite_option("an existing page")
@output_options
def report(
    results: tuple[Path, ...],
    output: Path | None,
    form: Literal["html", "md", "json"],
    forgotten: tuple[str, ...],
    calibration: Path | None,
    figures: Path | None,
    items: Path | None,
    include_samples: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write one page about RESULTS, the files that `evaluate -o` wrote: a verdict in words, figures and tables."""
    if output is None and (form == "html" or as_json):
        raise click.UsageError("give -o report.html, or --format md or json to read it here")
    made = mllmeraser.report(
        results,
        output,
        form=form,
        forgotten=forgotten,
        calibration=calibration,
        items=items,
        include_samples=include_samples,
        figures=figures,
        overwrite=overwrite,
    )
    say(as_json, made.document(), made.text.splitlines() if output is None else made.lines())
