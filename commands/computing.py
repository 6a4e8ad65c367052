"""What `compute` and `export --forget` share: from records to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mllmeraser.commands.options import recipe_of

if TYPE_CHECKING:
    from mllmeraser.inference.source import Source
    from mllmeraser.steering.compute import Computation


def compute_bundle(source: Source, options: Mapping[str, Any]) -> Computation:
    """What `compute` and `export --forget` do: read, load, compute."""
    from mllmeraser.inference.loading import load
    from mllmeraser.steering.compute import compute
    from mllmeraser.steering.samples import read_samples, stream_samples

    recipe = recipe_of(source, options)
    forget, retain = read_samples(options["forget"]), stream_samples(options["retain"])
    return compute(
        load(source, device=options["device"], dtype=options["dtype"], work_dir=options["work_dir"]),
        forget,
        retain,
        recipe,
        request_id=options["request_id"],
        seed=options["seed"],
        batch_size=options["batch_size"],
        compare=options.get("compare", False),
    )
