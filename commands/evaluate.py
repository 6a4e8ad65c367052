"""`mllmeraser evaluate`: what is forgotten, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import rich_click as click

from mllmeraser.commands.options import CAREFUL, PATH, model_options, output_options, overwrite_option
from mllmeraser.commands.reporting import report


@click.command(short_help="What is forgotten, and what is kept.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", multiple=True, required=True, metavar="NAME=FILE", help="Records to ask; may be repeated.")
@click.option("--protocol", default="mllmeraser", show_default=True, help="The wording of records without a prompt.")
@click.option("--examples", type=PATH, help="Where --protocol official takes its worked examples from.")
@click.option("--reference", metavar="NAME", help="The MODEL that never saw the forgotten, to compare the others with.")
@click.option("--fit", multiple=True, type=PATH, help="Records a MODEL was fitted on; may be repeated.")
@click.option(
    "--tier",
    type=click.Choice(["T0", "T1", "T2"]),
    help="How far the data must be from the fit: T0 the same records, T1 the same people, T2 other people kept.",
)
@click.option(
    "--items",
    type=PATH,
    panel=CAREFUL,
    help="Write every question and reply here (JSON Lines); sensitive. A killed run goes on from there.",
)
@click.option("--output", "-o", type=PATH, help="Write the results here (JSON).")
@overwrite_option("output files that are there")
@model_options
@output_options
def evaluate(
    models: tuple[str, ...],
    data: tuple[str, ...],
    protocol: str,
    examples: Path | None,
    reference: str | None,
    fit: tuple[Path, ...],
    tier: Literal["T0", "T1", "T2"] | None,
    items: Path | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    seed: int,
    device: str,
    dtype: str,
    batch_size: int,
) -> None:
    """Ask MODELs (NAME=PATH or PATH; the first is the base) the records of the data, and score the replies."""
    from mllmeraser.evaluation.inputs import models_from, sets_from
    from mllmeraser.evaluation.protocols import protocol_named
    from mllmeraser.evaluation.run import evaluate
    from mllmeraser.evaluation.table import plain_text
    from mllmeraser.files import refuse_existing, write_atomically
    from mllmeraser.steering.samples import read_samples

    refuse_existing([output] if output else [], overwrite)
    results = evaluate(
        models_from(models, device=device, dtype=dtype),
        sets_from(data),
        protocol=protocol_named(protocol),
        batch_size=batch_size,
        seed=seed,
        reference=reference,
        examples=read_samples(examples) if examples else (),
        fit=[sample for path in fit for sample in read_samples(path)],
        tier=tier,
        items=items,
        overwrite=overwrite,
    )
    document = results.document(None if output is None else str(output))
    if output is not None:
        write_atomically(output, f"{json.dumps(document, indent=2)}\n".encode())
    report(as_json, document, plain_text(document["rows"]).splitlines())
