"""An exported directory is read once, and what is wrong with it is said each time it is asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mllmeraser.exporter.checks import FAILURES, CheckFailed
from mllmeraser.exporter.checks_files import file_checks
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.opened import Opened


def test_the_checks_read_every_json_file_and_the_code_once(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    read_bytes = Path.read_bytes

    def counted(path: Path) -> bytes:
        read[path.name] += path.parent == exported
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    monkeypatch.setattr(Path, "read_text", None)
    opened = Opened(exported)
    assert all(check.ok for check in file_checks(opened, None))
    assert opened.format == "checkpoint" and not opened.thin
    assert {"mllmeraser.json", "config.json", "mllmeraser.safetensors.index.json"} <= set(read)
    assert max(read.values()) == 1, read


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1, "files": {}}', "\ud800", "[" * 100_000])
def test_a_damaged_manifest_is_the_same_failure_for_everybody(exported: Path, text: str) -> None:
    (exported / "mllmeraser.json").write_text(text, errors="surrogatepass")
    opened, failures = Opened(exported), []
    for _ in range(2):
        with pytest.raises(FAILURES) as caught:
            opened.manifest  # noqa: B018 - a property that raises
        failures.append(caught.value)
    assert failures[0] is failures[1]
    failed = {check.name for check in file_checks(opened, None) if not check.ok}
    assert failed == {"manifest", "files", "unlisted files", "bundles"}


def _graphs(exported: Path, **changed: Any) -> Opened:
    """The directory, its manifest turned into one of graphs."""
    path = exported / "mllmeraser.json"
    manifest = {**json.loads(path.read_text()), "format": "onnx", **changed}
    path.write_bytes(sealed(manifest))
    return Opened(exported)


@pytest.mark.parametrize("twin", ["nowhere.onnx", "../outside.onnx", "/etc/hostname", ["config.json"], 7])
def test_a_graph_or_its_twin_is_a_listed_file(exported: Path, twin: object) -> None:
    assert _graphs(exported, graphs={"config.json": {"twin": None, "reply_steps": 1}}).manifest
    for graphs in ({"config.json": {"twin": twin}}, {str(twin): {"twin": None}}, {"config.json": twin}):
        opened = _graphs(exported, graphs=graphs)
        assert opened.format == "onnx"
        with pytest.raises(CheckFailed):
            opened.manifest  # noqa: B018 - a property that raises
