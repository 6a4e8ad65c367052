"""`mllmeraser push`: publish a checkpoint on the Hub, in one commit."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from rich.markup import escape

import mllmeraser
from mllmeraser.commands.options import CAREFUL, HELP, PATH, output_options
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console
from mllmeraser.errors import escaped


@click.command(short_help="Push a checkpoint to the Hub, private by default.", context_settings=HELP)
@click.argument("directory", type=PATH)
@click.argument("repo_id")
@click.option(
    "--results", type=PATH, metavar="FILE", help="What evaluate -o wrote. The model card shows its numbers, no replies."
)
@click.option("--dry-run", is_flag=True, help="List the files, their sizes and what would be done. Nothing is written.")
@click.option(
    "--public",
    is_flag=True,
    panel=CAREFUL,
    help="Let everybody see the repository. This comes last, after the hashes have been compared. Refused if the base "
    "is private.",
)
@click.option(
    "--i-know-this-tells-whom-it-forgets",
    "tells_whom",
    is_flag=True,
    panel=CAREFUL,
    help="Needed for --public: whoever has base and checkpoint can test whom it forgets.",
)
@output_options
def push(
    directory: Path,
    repo_id: str,
    results: Path | None,
    dry_run: bool,
    public: bool,
    tells_whom: bool,
    as_json: bool,
) -> None:
    """Push an exported DIRECTORY to REPO_ID (org/name) on the Hub, in one commit. It is verified first.

    Without --public, a new repository is private, and an existing public repository is refused. The base's licence is
    carried over. If the base asks for access, the new repository does so too, before it holds a file. The Hub itself
    copies the files of the base that it holds; the rest is uploaded. DIRECTORY does not change.

    Log in with `hf auth login`, or set HF_TOKEN. An interrupted push leaves at most an empty private repository. Run
    the same command again to go on.
    """
    pushed = mllmeraser.push(
        directory, repo_id, public=public, tells_whom_it_forgets=tells_whom, results=results, dry_run=dry_run
    )
    report(as_json, pushed.document(), pushed.lines())
    for warning in pushed.warnings:
        console.print(f"[yellow]warning:[/] {escape(escaped(warning))}", soft_wrap=True)
    again = f"mllmeraser evaluate {pushed.base or 'BASE'} {repo_id}@{pushed.tag} --data NAME=FILE.jsonl"
    suggest("the same without --dry-run" if dry_run else again)
