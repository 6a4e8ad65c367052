"""Tiny decoders exported once for all tests, and what the tests of the exporter share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "modeling"))
sys.path.insert(0, str(Path(__file__).parents[1] / "exporter"))
sys.path.insert(0, str(Path(__file__).parent))

import graphs
import tiny
from checkpoints import _no_progress_bar  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def exported_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The un-steered export of each tiny family."""
    return {family: graphs.export_tiny(family, tmp_path_factory.mktemp(family)) for family in tiny.FAMILIES}


@pytest.fixture(scope="session")
def exported_decoders(exported_bases: dict[str, Path]) -> dict[str, Path]:
    """The decoder graph of each tiny family."""
    return {family: folder / graphs.DECODER for family, folder in exported_bases.items()}


@pytest.fixture(params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> tiny.Family:
    """Every family in turn."""
    return request.param


@pytest.fixture
def decoder(exported_decoders: dict[str, Path], family: tiny.Family) -> Path:
    """The exported decoder of this family."""
    return exported_decoders[family]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript packages; MLLMERASER_NODE_MODULES may name one that has them already."""
    given = os.environ.get("MLLMERASER_NODE_MODULES")
    if given:
        return Path(given).parent
    if not shutil.which("npm"):
        pytest.skip("npm is not installed, and MLLMERASER_NODE_MODULES does not name a folder with the packages")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(Path(__file__).parent / "clients" / "package.json", folder)
    # The install script of onnxruntime-node downloads CUDA libraries.
    done = subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit"], cwd=folder, capture_output=True)
    if done.returncode:
        pytest.skip("npm could not install @huggingface/transformers (is there a network?)")
    return folder
