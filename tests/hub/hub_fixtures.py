"""A Hub on loopback for this process's client, and an exported checkpoint whose base is published there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import make_base, make_bundle
from hub_server import BASE, TOKEN, FakeHub, publish, serving
from huggingface_hub import close_session, constants
from huggingface_hub.utils import _http

from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """An empty Hub; the client of this process is logged in as an owner and has an empty cache."""
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


@pytest.fixture(scope="module")
def base_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in several shards."""
    return make_base(tmp_path_factory.mktemp("base") / "base", sharded=True)


@pytest.fixture
def published(hub: FakeHub, base_directory: Path) -> str:
    """The base, published; its commit."""
    return publish(hub, BASE, base_directory)


@pytest.fixture
def exported(published: str, base_directory: Path, tmp_path: Path) -> Path:
    """An export of it."""
    bundle = make_bundle(base_directory, kind="kernel", shape="step", threshold=0.6, steps=2)
    export(Source(base_directory, BASE, published), [bundle], tmp_path / "out")
    return tmp_path / "out"
