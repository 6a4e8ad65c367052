"""`mllmeraser verify`: check every promise of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, output_options
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.errors import VerificationError


@click.command(short_help="Check every promise of a checkpoint.", context_settings=HELP)
@click.argument("directory", type=PATH)
@click.option("--base", metavar="BASE", help="Also check that the weights are those of this base.")
@click.option(
    "--public-key", type=PATH, metavar="FILE", help="Also check the signature, with the signer's public key (PEM)."
)
@output_options
def verify(directory: Path, base: str | None, public_key: Path | None, as_json: bool) -> None:
    """Check every promise of an exported DIRECTORY that can be checked without a GPU.

    The exit code is 3 if a promise is broken.
    """
    verification = mllmeraser.verify(directory, base=base, public_key=public_key)
    marks = {True: "ok    ", False: "FAILED"}
    lines = [f"{marks[check.ok]} {check.name}: {check.detail}" for check in verification.checks]
    held = sum(check.ok for check in verification.checks)
    report(as_json, verification.document(), [*lines, f"{held} of {len(lines)} checks hold"])
    if not verification.ok:
        failed = [check.name for check in verification.checks if not check.ok]
        raise VerificationError(f"{directory}: {len(failed)} check(s) failed: {', '.join(failed)}; export it again")
    evaluate = f"mllmeraser evaluate {base or 'BASE'} {directory} --data NAME=FILE.jsonl -o results.json"
    suggest(f"mllmeraser sign {directory} --private-key FILE" if verification.format == "onnx" else evaluate)
