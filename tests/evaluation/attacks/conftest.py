"""Lets the tests import ``fixtures`` and ``tiny_chat`` of the folder above."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
