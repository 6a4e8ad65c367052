"""`mllmeraser baseline`: make a checkpoint that forgets by another method."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, RUNNING, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest


@click.command(short_help="Forget by another method, for comparison.", context_settings=HELP)
@click.argument("name")
@click.argument("base")
@click.option("--forget", type=PATH, required=True, help="The forget set: records about whom to forget (JSON Lines).")
@click.option("--retain", type=PATH, required=True, help="The retain set: records of what to keep (JSON Lines).")
@click.option("--output", "-o", type=PATH, required=True, help="The directory of the checkpoint.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the method's recipe, for example epochs=2. May be repeated.",
)
@click.option("--names", type=PATH, help="For system-prompt: a file with the names to refuse, one a line.")
@overwrite_option("a directory that is not empty")
@click.option(
    "--device", default="cpu", show_default=True, panel=RUNNING, help="A torch device, for example cpu or cuda."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    panel=RUNNING,
    help="The seed of everything that is random.",
)
@output_options
def baseline(
    name: str,
    base: str,
    forget: Path,
    retain: Path,
    output: Path,
    settings: tuple[str, ...],
    names: Path | None,
    overwrite: bool,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Make BASE forget by the method NAME, and write an ordinary checkpoint.

    NAME is one of ga, ga-diff-sequential, ga-diff-interleaved, ga-diff-joint, kl-min, npo, npo-public, mmunlearner,
    manu, system-prompt, constant-vector, random-vector, conditional-steering (docs/baselines.md).
    """
    made = mllmeraser.baseline(
        name,
        base,
        forget,
        retain,
        output,
        settings=settings,
        names=names,
        device=device,
        seed=seed,
        overwrite=overwrite,
    )
    report(as_json, made.document(), made.lines())
    suggest(f"mllmeraser evaluate base={base} {name}={output} --data NAME=FILE.jsonl -o results.json")
