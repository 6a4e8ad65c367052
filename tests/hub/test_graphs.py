"""A directory of graphs is pushed with its own card, which gets the terms of the base's gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.card_results import write_results
from builders.checkpoints import contents
from builders.hub_server import BASE, NEW, FakeHub
from huggingface_hub import ModelCard

from mllmeraser.errors import InputError
from mllmeraser.exporter import hub as pushing
from mllmeraser.exporter import manifest
from mllmeraser.exporter.verify import Verification

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
CARD = b"---\nlicense: llama2\nlibrary_name: onnx\n---\n# Steered ONNX graphs\n\nas they were written\n"
FILES = {
    "README.md": CARD,
    "onnx/decoder.onnx": b"a graph",
    "onnx/decoder.onnx_data": b"its weights",
    "config.json": b"{}",
}


@pytest.fixture
def graphs(tmp_path: Path, published: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the manifest of graphs, which is taken to verify: what is in them is nothing to a push."""
    monkeypatch.setattr(pushing, "verify_opened", lambda opened: Verification((), "onnx"))
    (tmp_path / "graphs" / "onnx").mkdir(parents=True)
    entries = {}
    for name, data in FILES.items():
        (tmp_path / "graphs" / name).write_bytes(data)
        entries[name] = manifest.Entry(len(data), pushing._held(name, data).sha256, "tool")
    origin = {"schema": 1, "format": "onnx", "graphs": {}, "base": {"repo_id": BASE, "revision": published}}
    (tmp_path / "graphs" / "mllmeraser.json").write_bytes(manifest.render(origin, entries))
    return tmp_path / "graphs"


def test_graphs_travel_in_their_folders(hub: FakeHub, graphs: Path) -> None:
    before = contents(graphs)
    pushing.push(graphs, NEW)
    assert {n: b.data for n, b in hub.repos[NEW].files.items() if n != ".gitattributes"} == before


def test_the_gate_comes_along(hub: FakeHub, graphs: Path) -> None:
    base = hub.repos[BASE]
    base.gated = "manual"
    base.files["README.md"].data = b"---\nextra_gated_heading: Who are you?\n---\n"
    assert pushing.push(graphs, NEW).gated == hub.repos[NEW].gated == "manual"
    files = hub.repos[NEW].files
    card = ModelCard(files["README.md"].data.decode())
    assert (card.data.extra_gated_heading, card.data.license) == ("Who are you?", "llama2")
    assert card.text.strip() == ModelCard(CARD.decode()).text.strip()
    assert json.loads(files["mllmeraser.json"].data)["files"]["README.md"]["sha256"] == files["README.md"].sha256


def test_results_have_no_place_there(hub: FakeHub, graphs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ONNX graphs"):
        pushing.push(graphs, NEW, results=write_results(tmp_path / "results.json", ["forget"]))
    assert NEW not in hub.repos
