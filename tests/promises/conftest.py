"""The builders and fixtures of tests/exporter/checkpoints.py, a Hub on loopback, and every_stage.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
sys.path.insert(0, str(Path(__file__).parent))  # so that the tests import every_stage

from checkpoints import _no_progress_bar, base, exported, sharded  # noqa: F401 - fixtures
from hub_fixtures import base_directory, hub, published  # noqa: F401 - fixtures
from hub_fixtures import exported as of_a_hub_base  # noqa: F401 - a fixture
