"""Lets the tests import ``talker`` of tests/steering, and gives the fixtures of tests/exporter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))
sys.path.insert(0, str(Path(__file__).parents[1] / "steering"))

from checkpoints import _no_progress_bar  # noqa: F401 - a fixture
