"""`mllmeraser interference`: what requests do to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from mllmeraser.commands.options import PATH, model_options, output_options
from mllmeraser.commands.reporting import report, resolve, suggest


@click.command(short_help="What requests do to each other.")
@click.argument("base")
@click.option("--bundle", "bundles", type=PATH, multiple=True, required=True, help="A bundle; give all of them.")
@click.option("--forget", type=PATH, multiple=True, required=True, help="Its forget set; in the order of the bundles.")
@model_options
@output_options
def interference(
    base: str, bundles: tuple[Path, ...], forget: tuple[Path, ...], as_json: bool, batch_size: int, **options: Any
) -> None:
    """How far the gates of each bundle's request open on the forget set of every other; run on BASE, un-steered."""
    from mllmeraser.inference.loading import load
    from mllmeraser.steering.bundle import load_bundle
    from mllmeraser.steering.interference import interference
    from mllmeraser.steering.samples import read_samples

    steering, records = [load_bundle(path) for path in bundles], [read_samples(path) for path in forget]
    checkpoint = load(resolve(base), device=options["device"], dtype=options["dtype"])
    found = interference(checkpoint, steering, records, batch_size)
    report(as_json, found.document(), found.lines())
    suggest(f"mllmeraser export {base} {' '.join(f'--bundle {path}' for path in bundles)} -o DIRECTORY")
