"""What the tests of more than one file use: bases and exports, a Hub on loopback, the command line, a browser.

The builders are in ``tests/builders``. They take seconds to import, because transformers does; a fixture imports what
it needs, so that tests without a model start at once.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from builders.command_line import Run
    from builders.hub_server import FakeHub
    from builders.tiny import Family
    from playwright.sync_api import Browser, Page
    from transformers import PreTrainedModel

    from mllmeraser.inference.source import Source
    from mllmeraser.records.record import Record

# Fixtures that take most of a minute: what uses them is slow.
SLOW = {"exported_bases", "demo_data"}
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PATIENCE = 300_000  # milliseconds: how long a page may take on a busy machine; nobody waits for it on an idle one


@pytest.hookimpl(tryfirst=True)  # before the items are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and SLOW & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_progress_bar() -> None:
    """transformers draws one for every checkpoint that it loads or saves; some code turns them on again."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The models are tiny: a second thread only waits."""
    import torch

    torch.set_num_threads(1)


# -------------------------------------------------------------------------------------------------- models in memory


@pytest.fixture(params=["llava", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def family(request: pytest.FixtureRequest) -> Family:
    """The two families that everything is tried on; the code is the same, so the second one is slow."""
    chosen: Family = request.param
    return chosen


@functools.cache
def _base_model(family: Family) -> PreTrainedModel:
    from builders import tiny

    return tiny.model(family)


@pytest.fixture
def base_model(family: Family) -> PreTrainedModel:
    """An un-steered model of the family; shared, so a test must not change it."""
    model = _base_model(family)
    if family.startswith("qwen"):
        model.model.rope_deltas = None  # Qwen remembers it from the last picture it saw
    return model


@pytest.fixture
def llava() -> PreTrainedModel:
    """As ``base_model``, LLaVA only."""
    return _base_model("llava")


@pytest.fixture(scope="session")
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remote code is copied into a folder of this run; one for all tests, for Python remembers where it found it."""
    from transformers import dynamic_module_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


# ---------------------------------------------------------------------------------------------- directories of a test


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A LLaVA base in one file."""
    from builders.checkpoints import make_base

    return make_base(tmp_path / "base")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A LLaVA base in several shards."""
    from builders.checkpoints import make_base

    return make_base(tmp_path / "base", sharded=True)


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of ``base`` with one kernel-gated request; shared, so a test must not change it."""
    from builders.checkpoints import make_base, make_bundle

    from mllmeraser.exporter.directory import export
    from mllmeraser.inference.source import Source

    folder = tmp_path_factory.mktemp("exported")
    base = make_base(folder / "base")
    bundle = make_bundle(base, kind="kernel", shape="step", threshold=0.6, steps=2)
    export(Source(base), [bundle], folder / "out", link="copy")
    return folder / "out"


@pytest.fixture
def exported(exported_once: Path, base: Path, tmp_path: Path) -> Path:
    """``base`` and its export, in copies of this test's own, to be damaged."""
    return Path(shutil.copytree(exported_once, tmp_path / "out"))


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file of every set of the demo, by name; shared, so a test must not change them."""
    from builders.once import made_once

    from mllmeraser.demo.data import write_data

    folder = made_once(tmp_path_factory, "data", lambda folder: write_data(folder / "data")) / "data"
    return {path.stem: path for path in folder.glob("*.jsonl")}


# ------------------------------------------------------------------------------------ a base to ask, and people to ask


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``, ``forget.jsonl`` and ``retain.jsonl``; shared, so a test must not change them."""
    from builders import talker

    folder = tmp_path_factory.mktemp("world")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(2))
    talker.write_people(folder / "retain.jsonl", range(2, 6))
    return folder


@pytest.fixture
def source(world: Path) -> Source:
    """The base of ``world``."""
    from mllmeraser.inference.source import Source

    return Source(world / "base")


@pytest.fixture
def forget(world: Path) -> list[Record]:
    """Two people of ``world``."""
    from mllmeraser.records.read import read_records

    return list(read_records(world / "forget.jsonl"))


@pytest.fixture
def retain(world: Path) -> list[Record]:
    """Four other people of ``world``."""
    from mllmeraser.records.read import read_records

    return list(read_records(world / "retain.jsonl"))


# --------------------------------------------------------------------------------------------------- a Hub on loopback


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """An empty Hub; the client of this process is logged in as an owner and has an empty cache."""
    from builders.hub_server import TOKEN, serving
    from huggingface_hub import close_session, constants
    from huggingface_hub.utils import _http

    with serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None, time=lambda: 0.0))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        close_session()
        yield running
        close_session()


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in several shards; shared, so a test must not change it."""
    from builders.checkpoints import make_base

    return make_base(tmp_path_factory.mktemp("base") / "base", sharded=True)


@pytest.fixture
def published(hub: FakeHub, base_directory: Path) -> str:
    """The base, published; its commit."""
    from builders.hub_server import BASE, publish

    return publish(hub, BASE, base_directory)


@pytest.fixture
def hub_export(published: str, base_directory: Path, tmp_path: Path) -> Path:
    """An export of it."""
    from builders.checkpoints import make_bundle
    from builders.hub_server import BASE

    from mllmeraser.exporter.directory import export
    from mllmeraser.inference.source import Source

    bundle = make_bundle(base_directory, kind="kernel", shape="step", threshold=0.6, steps=2)
    export(Source(base_directory, BASE, published), [bundle], tmp_path / "out")
    return tmp_path / "out"


# --------------------------------------------------------------------------------------------------------- ONNX graphs


@pytest.fixture(scope="session")
def exported_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The un-steered export of each tiny family."""
    from builders import graphs, tiny
    from builders.once import made_once

    made = {}
    for family in tiny.FAMILIES:
        folder = made_once(tmp_path_factory, family, functools.partial(graphs.export_tiny, family))
        made[family] = folder / "export"
    return made


@pytest.fixture(scope="session")
def exported_decoders(exported_bases: dict[str, Path]) -> dict[str, Path]:
    """The decoder graph of each tiny family."""
    from builders import graphs

    return {family: folder / graphs.DECODER for family, folder in exported_bases.items()}


@pytest.fixture
def decoder(exported_decoders: dict[str, Path], family: Family) -> Path:
    """The exported decoder of this family."""
    return exported_decoders[family]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript packages; MLLMERASER_NODE_MODULES may name one that has them already."""
    from builders.once import made_once

    given = os.environ.get("MLLMERASER_NODE_MODULES")
    if given:
        return Path(given).parent
    if not shutil.which("npm"):
        pytest.skip("npm is not installed, and MLLMERASER_NODE_MODULES does not name a folder with the packages")

    def install(folder: Path) -> None:
        shutil.copy(Path(__file__).parent / "onnx" / "clients" / "package.json", folder)
        # The install script of onnxruntime-node downloads CUDA libraries.
        subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit"], cwd=folder, capture_output=True)

    folder = made_once(tmp_path_factory, "node", install)
    if not (folder / "node_modules" / "@huggingface").is_dir():
        pytest.skip("npm could not install @huggingface/transformers (is there a network?)")
    return folder


# -------------------------------------------------------------------------------------- the command line and a browser


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs commands in this process."""
    from builders.command_line import Run

    from mllmeraser.console import console

    yield Run(capsys, monkeypatch)
    console.quiet = False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, without a window; a module's own, since its event loop would disturb others."""
    if CHROMIUM is None:  # it comes with the machine, not with pip
        pytest.skip("no chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def new_tab(browser: Browser) -> Callable[..., Page]:
    """Opens an empty page, with the options of ``Browser.new_page``; everything done with it has patience."""

    def opened(**options: Any) -> Page:
        tab = browser.new_page(**options)
        tab.set_default_timeout(PATIENCE)
        return tab

    return opened
