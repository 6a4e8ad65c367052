"""Lets the tests import ``fixtures`` and ``tiny_chat``, beside them, and the tiny models of tests/modeling."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "modeling"))
