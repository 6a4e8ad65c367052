"""P15: every headline is made twice, and a fault planted in either way shows as a difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mllmeraser
from mllmeraser.demo.data import write_data
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.evaluation import cross_check
from mllmeraser.inference import encoding
from mllmeraser.judging.facts import Verdict


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve open questions about pictures, and twelve in words."""
    folder = tmp_path_factory.mktemp("data")
    lines = write_data(folder, 0)["test"].read_text().splitlines()
    records = [json.loads(line) for line in lines]
    open_ones = [record for record in records if record["task"] == "generation"]
    chosen = [r for r in open_ones if r["image"]][:12] + [r for r in open_ones if not r["image"]][:12]
    (folder / "some.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in chosen))
    return folder / "some.jsonl"


def checks(people: Path, **options: Any) -> list[Any]:
    found = mllmeraser.evaluate([f"base={CHECKPOINT}"], [f"people={people}"], dtype="float32", **options)
    return list(found.file.cross_checks)


def test_both_ways_give_one_figure(people: Path) -> None:
    (check,) = checks(people)
    assert (check.model, check.set, check.n) == ("base", "people", 24)
    assert check.accuracy == check.again > 0.8
    assert check.same_replies == 1
    assert check.agrees


def test_so_many_records_are_asked_again(people: Path) -> None:
    (check,) = checks(people, cross_check=7)
    assert check.n == 7
    assert checks(people, cross_check=0) == []


def test_a_text_that_no_reply_need_repeat_is_not_asked_again(people: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in people.read_text().splitlines()[12:]]
    for record in lines[:4]:
        record["answer"] = f"{record['answer']} That much is known, and more than this was never asked by anybody."
        record["facts"] = [record["answer"]]
    (tmp_path / "some.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in lines))
    (check,) = checks(tmp_path / "some.jsonl")
    assert check.n == 8


def test_a_fault_of_our_reader_shows(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = encoding.opened

    def lying(picture: Any, named: str) -> Image.Image:
        return opened(picture, named).transpose(Image.Transpose.ROTATE_90)

    monkeypatch.setattr(encoding, "opened", lying)
    (check,) = checks(people)
    assert check.accuracy < check.again - 0.1
    assert not check.agrees


def test_a_fault_of_our_judge_shows(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmeraser.evaluation.items.verdict", lambda reply, record, judge: Verdict("not", 0.0))
    (check,) = checks(people)
    assert (check.accuracy, check.agrees) == (0, False)


def test_a_fault_of_the_other_way_shows(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_check, "stands_in", lambda reply, item: False)
    (check,) = checks(people)
    assert (check.again, check.agrees) == (0, False)


def test_a_difference_ends_the_command_with_3_after_the_results_are_written(
    people: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_check, "stands_in", lambda reply, item: False)
    result = run("evaluate", f"base={CHECKPOINT}", "--data", f"people={people}", "-o", tmp_path / "r.json")
    assert result.code == 3
    assert "asked again by other means" in result.stderr.splitlines()[-1]
    (check,) = json.loads((tmp_path / "r.json").read_text())["cross_checks"]
    assert check["again"] == 0
