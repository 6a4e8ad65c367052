"""The builders and fixtures of tests/exporter/checkpoints.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))

from checkpoints import _no_progress_bar, base, exported, sharded  # noqa: F401 - fixtures
