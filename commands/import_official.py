"""`mllmeraser import-official`: turn the authors' dense matrices into a bundle."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import HELP, PATH, output_options, overwrite_option, request_id_option
from mllmeraser.commands.reporting import report, suggest


@click.command("import-official", short_help="Turn the authors' matrices into a bundle.", context_settings=HELP)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--base", required=True, metavar="BASE", help="The model that the matrices were made for.")
@click.option("--output", "-o", type=PATH, required=True, help="The bundle to write, a .safetensors file.")
@request_id_option
@click.option("--strength", type=float, default=0.25, show_default=True, help="The authors' λ, without its sign.")
@click.option("--row-vectors", is_flag=True, help="The matrices are meant for h W, not for W h.")
@overwrite_option("an existing bundle")
@output_options
def import_official(
    files: tuple[Path, ...],
    base: str,
    output: Path,
    request_id: str,
    strength: float,
    row_vectors: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn the authors' dense .pt FILEs, one d × d matrix for each layer, into a bundle.

    No code in the files is run.
    """
    imported = mllmeraser.import_official(
        files,
        base,
        output,
        request_id=request_id,
        strength=strength,
        row_vectors=row_vectors,
        overwrite=overwrite,
    )
    report(as_json, {"output": str(output), **imported.document()}, imported.lines())
    suggest(f"mllmeraser export {base} --bundle {output} -o DIRECTORY")
