"""`mllmeraser compute`: compute the bundle of one request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import (
    HELP,
    PATH,
    compute_options,
    given,
    model_options,
    output_options,
    overwrite_option,
    request_id_option,
)
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console

_OF_THE_RUN = ("request_id", "compare_directions", "work_dir", "batch_size", "seed")


@click.command(short_help="Compute the bundle of one request.", context_settings=HELP)
@click.argument("base")
@click.option("--forget", type=PATH, required=True, help="The forget set: records about whom to forget (JSON Lines).")
@click.option(
    "--retain",
    type=PATH,
    required=True,
    help="The retain set: records of what to keep, other people and other knowledge (JSON Lines).",
)
@click.option("--output", "-o", type=PATH, required=True, help="The bundle to write, a .safetensors file.")
@request_id_option
@overwrite_option("an existing bundle")
@click.option(
    "--compare-directions",
    "compare_directions",
    is_flag=True,
    help="Also print the cosines between the directions of different sources.",
)
@click.option(
    "--work-dir",
    type=PATH,
    help="Keep finished passes and calibration.json here. A run that was interrupted goes on from them. The passes "
    "tell the names of the request: only you can read them, and should remove them afterwards.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check base and records, and print what would be done and the memory and disk it needs. No weight is read.",
)
@compute_options
@model_options
@output_options
def compute(base: str, output: Path, overwrite: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Compute the bundle of one request on BASE, a directory or a Hub id org/name[@revision].

    A bundle holds the directions from answering to refusing, and the gates that open on the forget set. `export` puts
    it beside the weights.
    """
    from mllmeraser.inference.processes import processes

    console.quiet = console.quiet or not processes().leads
    if dry_run:
        arguments = {name: value for name, value in given(options).items() if name not in _OF_THE_RUN}
        found = mllmeraser.needs(base, **arguments)
        report(as_json, found.document(), found.lines())
        found.check()
        suggest("the same without --dry-run")
        return
    computation = mllmeraser.compute(base, output=output, overwrite=overwrite, **given(options))
    if not processes().leads:
        return
    report(as_json, {"output": str(output), **computation.document()}, computation.lines())
    suggest(f"mllmeraser export {base} --bundle {output} -o DIRECTORY")
