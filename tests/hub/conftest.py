"""The fixtures of hub_fixtures.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))
sys.path.insert(0, str(Path(__file__).parents[1] / "steering"))
sys.path.insert(0, str(Path(__file__).parent))

from checkpoints import _no_progress_bar  # noqa: F401 - a fixture
from hub_fixtures import base_directory, exported, hub, published  # noqa: F401 - fixtures
