"""`mllmeraser evaluate`, with answers given elsewhere as its models: nothing has to be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.records import LETTERS, REFUSAL, some_records
from click import BadParameter
from click.testing import CliRunner, Result

from mllmeraser.commands.evaluate import evaluate
from mllmeraser.errors import InputError
from mllmeraser.records.record import Record

PEOPLE = some_records(8)
SETS = {"forget": PEOPLE[:12], "retain": PEOPLE[12:]}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sets, and what an untouched model and one that refuses about the forgotten said."""
    monkeypatch.chdir(tmp_path)
    told, silent = [], []
    for name, records in SETS.items():
        lines(tmp_path / f"{name}.jsonl", [record.model_dump(mode="json") for record in records])
        for index, record in enumerate(records):
            told.append(answer(name, index, record, True))
            silent.append(answer(name, index, record, name == "retain"))
    lines(tmp_path / "base.jsonl", told)
    lines(tmp_path / "oracle.jsonl", silent)
    return tmp_path


def answer(name: str, index: int, record: Record, known: bool) -> dict[str, Any]:
    weighed = [-0.1 if known and key == record.answer else -3.0 for key in LETTERS]
    likelihoods = {"log_likelihoods": weighed} if record.task == "classification" else {}
    return {"set": name, "index": index, "reply": record.answer if known else REFUSAL, **likelihoods}


def run(*arguments: str) -> Result:
    data = [part for name in SETS for part in ("--data", f"{name}.jsonl")]
    return CliRunner().invoke(evaluate, [*arguments, *data], standalone_mode=False)


def test_prepared_answers_are_scored(folder: Path) -> None:
    result = run("base.jsonl", "oracle.jsonl", "-o", "results.json", "--json")
    assert result.exception is None
    document = json.loads(result.stdout)
    assert document == json.loads((folder / "results.json").read_text())
    base, oracle = document["summary"]
    assert (base["model"], base["score"], base["utility_harmonic_mean"]) == ("base", 0.0, 1.0)
    assert (oracle["score"], oracle["forget_knowledge"], oracle["kept_identical"]) == (1.0, 0.0, 1.0)
    assert (document["forgotten"], document["tier"], document["reference"]) == (["forget"], None, None)


def test_no_question_or_reply_stands_in_the_results(folder: Path) -> None:
    result = run("base.jsonl", "-o", "results.json", "--json")
    for record in PEOPLE:
        assert record.question not in result.stdout
        assert f'"{record.subject}"' not in result.stdout
    assert REFUSAL not in result.stdout


def test_records_of_the_fit_are_refused_unless_asked_for_by_name(folder: Path) -> None:
    fit = ["--fit", "forget.jsonl"]
    result = run("base.jsonl", *fit)
    assert isinstance(result.exception, InputError)
    assert "set forget: 12 of 12 records were fitted on" in str(result.exception)
    assert json.loads(run("base.jsonl", *fit, "--tier", "T0", "--json").stdout)["tier"] == "T0"


def test_a_reference_is_one_of_the_models(folder: Path) -> None:
    result = run("base.jsonl", "--reference", "gold")
    assert str(result.exception) == "--reference gold: not one of the models base"


@pytest.mark.parametrize("option", ["--attacks", "--activations"])
def test_answers_cannot_be_attacked(folder: Path, option: str) -> None:
    assert "answers given elsewhere can only be scored" in str(run("base.jsonl", option).exception)


def test_items_are_kept_and_scored_again(folder: Path) -> None:
    first = json.loads(run("base.jsonl", "oracle.jsonl", "--items", "items.jsonl", "--json").stdout)
    again = run("base=items.jsonl", "oracle=items.jsonl", "--json")
    assert json.loads(again.stdout) == first


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--items", "results.json", "-o", "results.json"],
            "results.json: --items and --output are one file; give two",
        ),
        (["--items", "."], ".: is a directory; choose a file"),
    ],
)
def test_replies_are_written_to_a_file_of_their_own(folder: Path, arguments: list[str], line: str) -> None:
    result = run("base.jsonl", *arguments)
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == line
    assert not (folder / "results.json").exists()


def test_a_seed_is_not_negative(folder: Path) -> None:
    result = run("base.jsonl", "--seed", "-1")
    assert isinstance(result.exception, BadParameter)
    assert "-1 is not in the range x>=0" in str(result.exception)
