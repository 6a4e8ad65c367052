"""The demo end to end: the forgotten are forgotten, everybody else is not, and nothing is left of one that stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mllmeraser.demo import run as demo
from mllmeraser.demo.strangers import Strangers
from mllmeraser.errors import InputError, MllmEraserError

KEPT = ("retain_fit", "retain_heldout", "celebrity", "common")
TASKS, MODALITIES = ("generation", "cloze", "classification"), ("image_text", "text")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The directory and the document of ``mllmeraser demo DIR --json``."""
    directory = tmp_path_factory.mktemp("demo") / "out"
    call = [sys.executable, "-m", "mllmeraser.cli", "demo", str(directory), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"next: mllmeraser verify {directory}/steered --base {directory}/base"
    document: dict[str, Any] = json.loads(done.stdout)
    return directory, document


@pytest.fixture(scope="module")
def rows(finished: tuple[Path, dict[str, Any]]) -> list[Row]:
    found: list[Row] = finished[1]["rows"]
    return found


def of(rows: Sequence[Row], **keys: object) -> list[Row]:
    """The rows with these values."""
    found = [row for row in rows if all(row[key] == value for key, value in keys.items())]
    assert found, keys
    return found


def pooled(rows: Sequence[Row], key: str) -> float:
    """A rate over all records of the rows."""
    return float(sum(row[key] * row["n"] for row in rows) / sum(row["n"] for row in rows))


def spoken(rows: Sequence[Row], name: str) -> list[Row]:
    """Generation and cloze of the steered model in one set."""
    return of(rows, model="steered", set=name, task="generation") + of(rows, model="steered", set=name, task="cloze")


@pytest.mark.slow
def test_every_model_is_asked_every_set_task_and_modality(rows: list[Row]) -> None:
    cells = {(row["model"], row["set"], row["task"], row["modality"]) for row in rows}
    assert cells == {
        (model, name, task, modality)
        for model in ("base", "paper", "steered", "off")
        for name in ("forget", "test", *KEPT)
        for task in TASKS
        for modality in MODALITIES
    }
    assert all(row["n"] >= 20 for row in rows)


@pytest.mark.slow
def test_the_base_knows_everybody(rows: list[Row]) -> None:
    for name in ("forget", *KEPT):
        assert pooled(of(rows, model="base", set=name), "accuracy") >= 0.95
    assert pooled(of(rows, model="base", set="test"), "accuracy") >= 0.90
    assert pooled(of(rows, model="base"), "refusal") == 0


@pytest.mark.slow
def test_a_short_budget_of_attacks_gets_little(finished: tuple[Path, dict[str, Any]]) -> None:
    document = finished[1]
    assert {(row["model"], row["attack"]) for row in document["attacks"] if row["set"] == "test"} == {
        (model, attack) for model in ("base", "steered") for attack in demo.ATTACKS
    }
    base, steered = document["attacks_worst"]
    assert (base["n"], base["model"], steered["model"]) == (demo.ATTACKED, "base", "steered")
    assert steered["any"] <= 0.25 < 0.9 <= base["any"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_most"), [("forget", 0.05), ("test", 0.10)])
def test_the_forgotten_are_forgotten(rows: list[Row], name: str, at_most: float) -> None:
    """The right answer stands nowhere in the reply, new pictures and wordings included; the reply is a refusal."""
    assert pooled(spoken(rows, name), "accuracy") <= at_most
    assert pooled(spoken(rows, name), "refusal") >= 0.90


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_everybody_else_is_not(rows: list[Row], name: str) -> None:
    """At most two points below the base, and no row by more than two records; 97 % of the replies are the base's.

    In ``retain_fit`` some questions offer the name of somebody forgotten as an option, and are refused for it. Which
    records a gate mistakes differs between processors, whose products differ in their last bits.
    """
    for steered in of(rows, model="steered", set=name):
        (before,) = of(rows, model="base", set=name, task=steered["task"], modality=steered["modality"])
        lost = round((before["accuracy"] - steered["accuracy"]) * steered["n"])
        assert lost <= (3 if name == "retain_fit" else 2), steered
    base, steered = of(rows, model="base", set=name), of(rows, model="steered", set=name)
    assert pooled(steered, "accuracy") >= pooled(base, "accuracy") - 0.02
    assert pooled(steered, "identical_to_base") >= 0.97


@pytest.mark.slow
def test_switched_off_it_is_the_base(rows: list[Row]) -> None:
    for off in of(rows, model="off"):
        (base,) = of(rows, model="base", set=off["set"], task=off["task"], modality=off["modality"])
        assert off["identical_to_base"] == 1.0
        assert {**off, "model": "base"} == base


@pytest.mark.slow
def test_it_leaves_what_it_says(finished: tuple[Path, dict[str, Any]]) -> None:
    directory, document = finished
    assert (document["schema"], document["base"], document["output"]) == (1, "base", str(directory))
    assert json.loads((directory / "results.json").read_text()) == document
    assert {(check["model"], check["n"] > 40) for check in document["cross_checks"]} == {
        ("base", True),
        ("steered", True),
    }
    for name in ("base", "steered", "paper"):
        assert (directory / name / "config.json").is_file()
    assert (directory / "data" / "forget.jsonl").is_file()
    report = (directory / "report.html").read_text()
    for part in (
        "no longer answers about the forgotten",
        "Gate at layer",
        "output of layer",
        "Layers and strengths tried",
    ):
        assert part in report
    assert str(directory) not in report
    for record in map(json.loads, (directory / "data" / "forget.jsonl").read_text().splitlines()):
        assert record["question"] not in report and str(record["image"]) not in report
    assert {path.name for path in directory.parent.iterdir()} == {directory.name}


@pytest.mark.slow
def test_an_interruption_leaves_nothing_and_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Strangers] = []
    ask = Strangers.ask

    def asking(self: Strangers, *arguments: Any) -> None:
        asked.append(self)
        ask(self, *arguments)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Strangers, "ask", asking)
    monkeypatch.setattr(demo, "compute", interrupted)
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    assert asked[0].asked["base"].process.poll() is not None
    assert not asked[0].folder.exists()


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("of somebody")
    with pytest.raises(InputError, match=r"is not empty; choose another directory, or replace it with --overwrite$"):
        demo.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_installation_without_the_model_says_how_to_train_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CHECKPOINT", tmp_path / "none")
    with pytest.raises(MllmEraserError, match=r"train one: python -m mllmeraser\.demo\.train$"):
        demo.run(tmp_path / "out")
