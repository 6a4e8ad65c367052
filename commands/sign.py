"""`mllmeraser sign`: sign a checkpoint, in the format of OpenSSF."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, output_options
from mllmeraser.commands.reporting import report, suggest


@click.command(short_help="Sign a checkpoint (OpenSSF).", context_settings=HELP)
@click.argument("directory", type=PATH)
@click.option("--private-key", type=PATH, required=True, metavar="FILE", help="The signer's elliptic-curve key (PEM).")
@output_options
def sign(directory: Path, private_key: Path, as_json: bool) -> None:
    """Sign every file of an exported DIRECTORY, and write the signature to DIRECTORY/model.sig.

    The signature is made on this machine. The command needs an extra: pip install 'mllmeraser[sign]'.
    """
    signature = mllmeraser.sign(directory, private_key)
    report(as_json, {"schema": 1, "output": str(signature)}, [f"{signature}: signed"])
    suggest(f"mllmeraser verify {directory} --public-key FILE")
