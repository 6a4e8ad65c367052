"""The builders and fixtures of tests/exporter/checkpoints.py, and headers.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))
sys.path.insert(0, str(Path(__file__).parent))  # so that the tests import headers

from checkpoints import _no_progress_bar, base, exported, sharded  # noqa: F401 - fixtures
