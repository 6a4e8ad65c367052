"""`mllmeraser push`: one commit on the Hub."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from rich.markup import escape

import mllmeraser
from mllmeraser.commands.options import CAREFUL, HELP, PATH, output_options
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console


@click.command(short_help="One private commit on the Hub.", context_settings=HELP)
@click.argument("directory", type=PATH)
@click.argument("repo_id")
@click.option("--results", type=PATH, metavar="FILE", help="A results.json of evaluate, for the card: numbers only.")
@click.option("--dry-run", is_flag=True, help="List files, sizes and what becomes of them; write nothing.")
@click.option(
    "--public",
    is_flag=True,
    panel=CAREFUL,
    help="Let everybody see it; done last, when its hashes have been compared. Refused if the base is private.",
)
@output_options
def push(directory: Path, repo_id: str, results: Path | None, dry_run: bool, public: bool, as_json: bool) -> None:
    """Bring an exported DIRECTORY that verifies to REPO_ID (org/name) on the Hub, in one commit.

    The repository is made private, and an existing public one is refused, unless --public is given. Licence and gate
    of the base are carried over: if the base asks for access, so does the new repository, before a file is there.
    Files of the base are copied by the Hub and not uploaded, where it holds them. DIRECTORY is not changed.

    Log in with `hf auth login`, or set HF_TOKEN. A push that was interrupted leaves nothing visible, at most an empty
    private repository; run it again to go on.
    """

    pushed = mllmeraser.push(directory, repo_id, public=public, results=results, dry_run=dry_run)
    report(as_json, pushed.document(), pushed.lines())
    for warning in pushed.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    again = f"mllmeraser evaluate {pushed.base or 'BASE'} {repo_id}@{pushed.tag} --data NAME=FILE.jsonl"
    suggest("the same without --dry-run" if dry_run else again)
