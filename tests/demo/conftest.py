"""Lets the tests use the builders of tests/exporter; the demo's records are written once for all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))

from checkpoints import _no_progress_bar  # noqa: F401 - a fixture

from mllmeraser.demo.data import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file of every set, by name; shared, so a test must not change them."""
    return write_data(tmp_path_factory.mktemp("data"))
