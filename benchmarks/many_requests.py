"""What the n-th request costs at 7B: bytes of steering, and seconds of the export beside those of the first.

    python benchmarks/many_requests.py [--counts 1,10,100] [--landmarks 1024] [--projection 128]

The base has the shapes and names of LLaVA-1.5-7B, over holes. Every request has a gate of its own, random numbers of
the default form: landmarks behind a projection, read at one layer, and two sealed layers. As in a ledger the projection
and half of the landmarks, those of what must stay, are the same. Every line is one export in its own process, as
``mllmeraser requests export`` makes it; ``s / first`` compares it with that of one request in the same round.

What the n-th request costs in use is measured by ``benchmarks/overhead.py --requests 1 10 100``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from export_7b import llava_1_5_7b, write_sparse
from random_bundle import sealing_bundle

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.modeling_patches.format_mllmeraser import STEERING_FILE

_EXPORT = "from mllmeraser.exporter.directory import export"


def main() -> None:
    """Write the bundles, export each number of them, print a line for each."""
    parser = argparse.ArgumentParser(description="What the n-th request costs at 7B.")
    parser.add_argument("--counts", default="1,10,100")
    parser.add_argument("--landmarks", type=int, default=1024)
    parser.add_argument("--projection", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = write_sparse(folder / "base", *llava_1_5_7b(), shards=3)
        for n in range(max(counts)):
            kept = options.landmarks // 2
            bundle = sealing_bundle(base, landmarks=options.landmarks, projection=options.projection, kept=kept)
            (request,) = bundle.metadata.requests
            named = bundle.metadata.model_copy(update={"requests": [request.model_copy(update={"id": f"r{n}"})]})
            save_bundle(replace(bundle, metadata=named), folder / f"{n}.safetensors")
        size: dict[int, int] = {}
        ratios: dict[int, list[float]] = {count: [] for count in counts}
        for turn in range(options.rounds):
            spent = {}
            for count in counts:
                target = folder / f"out-{turn}-{count}"
                files = [str(folder / f"{n}.safetensors") for n in range(count)]
                call = f"export({str(base)!r}, {files!r}, {str(target)!r}, hash_weights=False, common=True)"
                before = time.monotonic()
                subprocess.run([sys.executable, "-c", f"{_EXPORT}; {call}"], check=True, capture_output=True)
                spent[count] = time.monotonic() - before
                size[count] = (target / STEERING_FILE).stat().st_size
            for count in counts:
                ratios[count].append(spent[count] / spent[counts[0]])
        print(f"{'requests':>8} {'steering, bytes':>16} {'bytes a request':>16} {'s / first':>10}")
        for count in counts:
            middle = sorted(ratios[count])[len(ratios[count]) // 2]
            print(f"{count:>8} {size[count]:>16,} {size[count] // count:>16,} {middle:>10.2f}")


if __name__ == "__main__":
    main()
