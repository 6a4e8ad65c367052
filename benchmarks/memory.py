"""Peak memory of `compute` with few and with many retain records; only the records themselves may add to it.

    python benchmarks/memory.py 1000 20000

Each count runs in its own process, on the demo's model unless ``--base`` names another. The script prints the peak
resident memory of each and its ratio to the first.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS = {"gate_scope": "prompt", "edit": "add", "augment": False, "strength": "1", "reply_steps": "2"}


def peak(base: Path, data: Path, count: int) -> int:
    """Compute with ``count`` retain records and return the peak resident memory of this process, in bytes."""
    from mllmeraser.inference.loading import load
    from mllmeraser.records.read import read_records
    from mllmeraser.steering.compute import compute
    from mllmeraser.steering.recipe import make_recipe

    checkpoint = load(base, dtype="float32")
    retain = read_records(data / f"retain-{count}.jsonl")
    compute(checkpoint, read_records(data / "forget.jsonl"), retain, make_recipe("llava", STEPS))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_records(data: Path, counts: list[int]) -> None:
    """Write forget and retain records like the demo world's, without pictures."""
    record = {"subject": "s{n}", "question": "What is the job of number {n}?", "answer": "baker", "task": "generation"}
    line = json.dumps({**record, "prompt": record["question"]}) + "\n"

    def lines(numbers: range) -> str:
        return "".join(line.replace("{n}", str(n)) for n in numbers)

    (data / "forget.jsonl").write_text(lines(range(200)))
    for count in counts:
        (data / f"retain-{count}.jsonl").write_text(lines(range(10_000, 10_000 + count)))


def main() -> None:
    """Measure every count, each in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--base", type=Path, help="default: the demo's model")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    base = options.base or Path(__file__).parents[1] / "demo" / "checkpoint"
    if options.child is not None:
        print(json.dumps(peak(base, options.child, options.counts[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder), options.counts)
        first = None
        for count in options.counts:
            command = [sys.executable, __file__, str(count), "--base", str(base), "--child", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = int(done.stdout.strip().splitlines()[-1])
            first = first or found
            print(f"{count:>7,} retain records  {found / 2**20:8.1f} MiB peak  {found / first:.3f}x", flush=True)


if __name__ == "__main__":
    main()
