"""`mllmeraser claim`: ask a base what it knows about a person."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from rich.markup import escape

import mllmeraser
from mllmeraser.commands.options import CAREFUL, HELP, PATH, model_options, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console


@click.command(short_help="Ask a base what it knows about a person.", context_settings=HELP)
@click.argument("base")
@click.option("--name", required=True, metavar="NAME", help="The person's name, as people would ask by it.")
@click.option("--picture", "pictures", multiple=True, type=PATH, help="A picture of the person. May be repeated.")
@click.option(
    "--fact",
    "facts",
    multiple=True,
    metavar="TEXT",
    help="What the base is said to tell, for example 'lives in Dublin'. May be repeated.",
)
@click.option(
    "--others",
    type=PATH,
    metavar="FILE.csv",
    help="People who must stay, with the columns name and picture. The records to keep begin with those most like the "
    "person.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Replies to each question: the likeliest, and N - 1 drawn ones.",
)
@click.option(
    "--controls",
    type=click.IntRange(8),
    default=19,
    show_default=True,
    metavar="N",
    help="Invented names to ask about in the same way. At most 1 in N + 1 claims about people whom the base does not "
    "know is found known.",
)
@click.option(
    "--output",
    "-o",
    type=PATH,
    required=True,
    panel=CAREFUL,
    help="The folder for evidence and records. It names the person; only you can read it.",
)
@overwrite_option("a former claim")
@click.option("--dry-run", is_flag=True, help="Check the base and what is given, and count the questions. Ask none.")
@model_options
@output_options
def claim(
    base: str,
    name: str,
    pictures: tuple[Path, ...],
    facts: tuple[str, ...],
    others: Path | None,
    samples: int,
    controls: int,
    output: Path,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    device: str,
    dtype: str,
    batch_size: int,
    seed: int,
) -> None:
    """Ask BASE about a person in many wordings, and tell what it knows from what it guesses.

    The same questions about invented names show what it guesses. If it knows the person, the output folder holds
    forget.jsonl, records made of its own replies, and retain.jsonl, records to keep.
    """
    from mllmeraser.inference.processes import processes

    console.quiet = console.quiet or not processes().leads
    found = mllmeraser.claim(
        base,
        name,
        output,
        pictures=pictures,
        facts=facts,
        others=others,
        samples=samples,
        controls=controls,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        seed=seed,
        dry_run=dry_run,
        overwrite=overwrite,
    )
    if not processes().leads:
        return
    report(as_json, found.document(), found.lines())
    for warning in found.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if dry_run:
        suggest("the same without --dry-run")
        return
    console.print(f"{escape(str(output))}: holds a name and what the model says of it; keep it apart", soft_wrap=True)
    if found.known:
        suggest(f"mllmeraser compute {base} --forget {output}/forget.jsonl --retain {output}/retain.jsonl -o BUNDLE")
    else:
        suggest(f"read {output}/claim.html; there is nothing to forget")
