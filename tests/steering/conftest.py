"""Lets the tests import ``talker`` and ``plain``, beside them, and the builders of tests/exporter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))

from checkpoints import _no_progress_bar  # noqa: F401 - a fixture
