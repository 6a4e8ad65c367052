"""Memory does not grow with the number of retain records."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
def test_ten_times_the_retain_records_take_the_same_memory() -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARK, "500", "5000"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    ratio = float(re.findall(r"([\d.]+)x", done.stdout)[-1])
    # The records themselves stay, a few kilobytes each; their states would be 500 MB.
    assert ratio < 1.08, done.stdout
