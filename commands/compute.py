"""`mllmeraser compute`: the steering bundle of one removal request."""

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
)
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console

_OF_THE_RUN = ("request_id", "compare_directions", "work_dir", "batch_size", "seed")


@click.command(short_help="The steering bundle of one removal request.", context_settings=HELP)
@click.argument("base")
@click.option("--forget", type=PATH, required=True, help="Records of whom to forget (JSON Lines).")
@click.option("--retain", type=PATH, required=True, help="Records of what to keep: other people, other knowledge.")
@click.option("--output", "-o", type=PATH, required=True, help="The bundle, a .safetensors file.")
@click.option("--request-id", default="request-1", show_default=True, help="Names the request; must not name a person.")
@overwrite_option("a bundle that is there")
@click.option(
    "--compare-directions", "compare_directions", is_flag=True, help="Also show cosines between sources of directions."
)
@click.option("--work-dir", type=PATH, help="Keep finished passes and the trade-off curve here; a killed run goes on.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and what it takes, and load nothing.")
@compute_options
@model_options
@output_options
def compute(base: str, output: Path, overwrite: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Compute the steering bundle of one removal request on BASE (a directory or a Hub id org/name[@revision])."""
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
