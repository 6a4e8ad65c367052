"""The card of a pushed checkpoint: what a reader of the Hub expects, and nothing of the data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from builders.card_results import row, write_results
from builders.hub_server import BASE, NEW, TOKEN, FakeHub
from huggingface_hub import ModelCard

from mllmeraser.bundle.limits import LIMITS
from mllmeraser.errors import InputError
from mllmeraser.exporter.card_results import read_comparisons
from mllmeraser.exporter.hub import push

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


def card_of(hub: FakeHub) -> ModelCard:
    """As a reader of the Hub has it."""
    return ModelCard(hub.repos[NEW].files["README.md"].data.decode())


def test_the_card_is_what_the_hub_expects(hub: FakeHub, hub_export: Path, published: str, tmp_path: Path) -> None:
    pushed = push(hub_export, NEW, results=write_results(tmp_path / "results.json", ["forget", "retain_heldout"]))
    card = card_of(hub)
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "image-text-to-text")
    assert (data["base_model"], data["base_model_relation"], data["license"]) == (BASE, "finetune", "llama2")
    assert "steered" in data["tags"]
    assert f'revision = "{pushed.tag}"' in card.text and f'path = "{NEW}"' in card.text  # pinned
    assert "steering_enabled = False" in card.text and LIMITS in card.text
    assert f"mllmeraser compute {BASE}@{published} --forget FORGET.jsonl" in card.text
    assert (
        "| forget | cloze | picture | 40 | 95.0% (75.0 – 100.0) | 5.0% (0.0 – 25.0) | 1.0% (0.0 – 21.0) "
        "| 90.0% (70.0 – 100.0) | 25.0% (5.0 – 45.0) |"
    ) in card.text
    results = card.data.eval_results
    assert [(r.dataset_split, r.metric_type, r.metric_value) for r in results] == [
        (name, metric, value)
        for name in ("forget", "retain_heldout")
        for metric, value in (("accuracy", 0.05), ("refusal_rate", 0.9), ("identical_to_base", 0.25))
    ]
    assert results[0].metric_name == "right replies (95 % 0.000 – 0.250; base 0.950)"
    assert data["model-index"][0]["name"] == "steered"


def test_the_manifest_lists_the_card_that_was_pushed(hub: FakeHub, hub_export: Path, tmp_path: Path) -> None:
    plain = push(hub_export, NEW)
    pushed = push(hub_export, NEW, results=write_results(tmp_path / "results.json", ["forget"]))
    assert {step.name for step in pushed.steps if step.action != "keep"} == {"README.md", "mllmeraser.json"}
    assert pushed.tag == plain.tag  # the same model, with another card
    files = hub.repos[NEW].files
    assert json.loads(files["mllmeraser.json"].data)["files"]["README.md"]["sha256"] == files["README.md"].sha256


def test_without_results_the_card_says_that_nothing_was_measured(hub: FakeHub, hub_export: Path) -> None:
    push(hub_export, NEW)
    assert "Not measured here." in card_of(hub).text
    assert "model-index" not in card_of(hub).data.to_dict()


def test_names_that_may_name_somebody_are_not_on_the_card(hub: FakeHub, hub_export: Path, tmp_path: Path) -> None:
    """A set is called as its file is, a model as its directory."""
    results = write_results(tmp_path / "canary.json", ["canary-quillfeather", "forget", "canary2"], ["canary-model"])
    push(hub_export, NEW, results=results)
    card = card_of(hub)
    assert re.search(r"\| set A \|.*\n\| forget \|.*\n\| set B \|", card.text)
    for data in (blob.data for blob in hub.repos[NEW].files.values()):
        assert b"canary" not in data and str(tmp_path).encode() not in data


def test_no_token_leaves_in_any_body(hub: FakeHub, hub_export: Path) -> None:
    push(hub_export, NEW)
    for request, body in hub.requests:
        assert TOKEN.encode() not in body and TOKEN not in request
        assert str(hub_export.parent).encode() not in body, request
    for blob in hub.repos[NEW].files.values():  # what a commit carries is encoded
        assert TOKEN.encode() not in blob.data and str(hub_export.parent).encode() not in blob.data


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": 2}, "schema"),
        ({"rows": []}, "rows"),
        ({"rows": [row("b", "forget", 2.0, 0, 1)]}, r"rows\.0\.accuracy"),
        ({"rows": [row("b", "forget", 1, 0, 1)]}, "0 models beside the base"),
        ({"rows": [row("b", "x", 1, 0, 1), row("p", "x", 1, 0, 1), row("q", "x", 1, 0, 1)]}, "2 models beside"),
        ({"rows": [row("b", "x", 1, 0, 1), row("p", "y", 1, 0, 1)]}, "no row for y"),
        ({"rows": [row("b", "x", 1, 0, 1), row("p", "x", 1, 0, 1, n=3)]}, "no row for x"),
    ],
)
def test_results_that_say_something_else_are_refused(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = write_results(tmp_path / "results.json", ["forget"])
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=complaint):
        read_comparisons(path)


def test_results_that_are_not_there_are_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file or directory; give what `mllmeraser evaluate -o` wrote"):
        read_comparisons(tmp_path / "nothing.json")
