"""`mllmeraser evaluate`: what is forgotten, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import rich_click as click
from rich.markup import escape

from mllmeraser.commands.options import CAREFUL, PATH, model_options, output_options, overwrite_option
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.console import console
from mllmeraser.errors import InputError


@click.command(short_help="What is forgotten, and what is kept.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="NAME=FILE",
    help="Records to ask, or a benchmark's folder; may be repeated.",
)
@click.option("--protocol", default="mllmeraser", show_default=True, help="The wording of records without a prompt.")
@click.option("--examples", type=PATH, help="Where --protocol official takes its worked examples from.")
@click.option("--reference", metavar="NAME", help="The MODEL that never saw the forgotten, to compare the others with.")
@click.option("--fit", multiple=True, type=PATH, help="Records a MODEL was fitted on; may be repeated.")
@click.option(
    "--tier",
    type=click.Choice(["T0", "T1", "T2"]),
    help="How far the data must be from the fit: T0 the same records, T1 the same people, T2 other people kept.",
)
@click.option("--attacks", is_flag=True, help="Also try to get the answers by other ways (docs/attacks.md).")
@click.option(
    "--attack-set", "attacked", multiple=True, metavar="NAME", help="Attack this set of the data.  [default: all sets]"
)
@click.option("--activations", is_flag=True, help="Also map the hidden states of steered MODELs, for the report.")
@click.option(
    "--items",
    type=PATH,
    panel=CAREFUL,
    help="Write every question and reply here (JSON Lines); sensitive. A killed run goes on from there.",
)
@click.option("--output", "-o", type=PATH, help="Write the results here (JSON).")
@overwrite_option("results that are there")
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
    attacks: bool,
    attacked: tuple[str, ...],
    activations: bool,
    items: Path | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    seed: int,
    device: str,
    dtype: str,
    batch_size: int,
) -> None:
    """Ask MODELs (NAME=PATH or PATH; the first is the base) the records of the data, and score the replies.

    A MODEL may also be a file of answers given elsewhere (.jsonl, docs/evaluation.md).
    """
    from mllmeraser.evaluation.activation_map import activation_maps
    from mllmeraser.evaluation.attacks.run import attack, attack_lines, sets_to_attack
    from mllmeraser.evaluation.harnesses import HARNESS_WARNING
    from mllmeraser.evaluation.inputs import NamedModel, models_from, sets_from
    from mllmeraser.evaluation.protocols import protocol_named
    from mllmeraser.evaluation.provenance import provenance
    from mllmeraser.evaluation.run import evaluate
    from mllmeraser.evaluation.table import plain_text, summary_lines
    from mllmeraser.files import refuse_existing, write_atomically
    from mllmeraser.inference.processes import processes
    from mllmeraser.steering.samples import read_samples

    console.quiet = console.quiet or not processes().leads
    refuse_existing([output] if output else [], overwrite)
    named, sets, wording = models_from(models, device=device, dtype=dtype), sets_from(data), protocol_named(protocol)
    victims = sets_to_attack(sets, attacked) if attacks or attacked else []
    asked = [model for model in named if isinstance(model, NamedModel)]
    if len(asked) < len(named) and (victims or activations):
        raise InputError("answers given elsewhere can only be scored: leave out --attacks and --activations")
    results = evaluate(
        named,
        sets,
        protocol=wording,
        batch_size=batch_size,
        seed=seed,
        reference=reference,
        examples=read_samples(examples) if examples else (),
        fit=[sample for path in fit for sample in read_samples(path)],
        tier=tier,
        items=items,
    )
    assault = attack(asked, sets, victims, protocol=wording, batch_size=batch_size, seed=seed) if victims else None
    maps = activation_maps(asked, sets, protocol=wording, batch_size=batch_size) if activations else []
    if not processes().leads:
        return
    document = results.document(None if output is None else str(output))
    document["provenance"] = provenance(asked, sets, seed=seed, dtype=dtype, device=device)
    lines = [*plain_text(document["rows"]).splitlines(), *summary_lines(document["summary"])]
    if assault is not None:
        document |= assault.document()
        lines += ["", *attack_lines(assault)]
    if maps:
        document["activations"] = maps
    if output is not None:
        write_atomically(output, f"{json.dumps(document, indent=2)}\n".encode())
    report(as_json, document, lines)
    if document["gates"]:
        console.print(f"[yellow]note:[/] {escape(HARNESS_WARNING)}", soft_wrap=True)
    if output is not None:
        suggest(f"mllmeraser report {output} -o report.html")
