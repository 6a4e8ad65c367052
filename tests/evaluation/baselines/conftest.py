"""A random base on disk with people to ask it about, from tests/steering; and a bundle of the default's form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "steering"))
sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import talker
from transformers.utils import logging

from mllmeraser.inference.source import Source
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record


@pytest.fixture(autouse=True)
def _no_progress_bar() -> None:
    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``, ``forget.jsonl`` and ``retain.jsonl``."""
    folder = tmp_path_factory.mktemp("world")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(2))
    talker.write_people(folder / "retain.jsonl", range(2, 6))
    return folder


@pytest.fixture(scope="session")
def source(world: Path) -> Source:
    return Source(world / "base")


@pytest.fixture(scope="session")
def forget(world: Path) -> list[Record]:
    return list(read_records(world / "forget.jsonl"))


@pytest.fixture(scope="session")
def retain(world: Path) -> list[Record]:
    return list(read_records(world / "retain.jsonl"))
