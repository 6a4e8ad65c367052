"""A killed run goes on, and asks nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import chat
from builders.records import some_records

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.journal import model_digest
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.run import evaluate_models
from mllmeraser.inference.loading import Checkpoint

RECORDS = some_records(4)
BATCH = 4


class Counted:
    """Tiny models that count the prompts they reply to, and stop after some."""

    def __init__(self) -> None:
        self.asked, self.stop_after = 0, 10**9

    def model(self, seed: int) -> Checkpoint:
        checkpoint = replace(chat.checkpoint(seed), batch_size=BATCH)
        generate: Callable[..., Any] = checkpoint.model.generate

        def counting(**inputs: Any) -> Any:
            self.asked += len(inputs["input_ids"])
            if self.asked > self.stop_after:
                raise KeyboardInterrupt
            return generate(**inputs)

        checkpoint.model.generate = counting
        return checkpoint

    def run(self, items: Path | None, digest: str = "x", **options: Any) -> Results:
        models = [
            NamedModel(f"m{seed}", lambda s=seed: self.model(s), lambda s=seed: f"{digest}{s}") for seed in (0, 1)
        ]
        return evaluate_models(models, [NamedSet("forget", RECORDS)], items=items, max_new_tokens=3, **options)


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, counted: Counted) -> None:
    whole = tmp_path / "whole.jsonl"
    expected = counted.run(whole)
    assert counted.asked == 2 * len(RECORDS)
    counted.asked, counted.stop_after = 0, len(RECORDS) + BATCH
    items = tmp_path / "items.jsonl"
    with pytest.raises(KeyboardInterrupt):
        counted.run(items)
    assert len(items.read_text().splitlines()) == len(RECORDS) + BATCH
    counted.asked, counted.stop_after = 0, 10**9
    found = counted.run(items)
    assert counted.asked == len(RECORDS) - BATCH
    assert items.read_bytes() == whole.read_bytes()
    assert found.file() == expected.file()
    counted.asked = 0
    counted.run(items)
    assert counted.asked == 0


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path, counted: Counted) -> None:
    items = tmp_path / "items.jsonl"
    counted.run(items)
    whole = items.read_bytes()
    items.write_bytes(whole[: whole.rindex(b"{") + 40])
    counted.asked = 0
    counted.run(items)
    assert counted.asked == 1
    lines, before = items.read_bytes().splitlines(), whole.splitlines()
    assert lines[:-1] == before[:-1]
    # Asked alone, not in its batch: the same but for rounding.
    again, first = json.loads(lines[-1]), json.loads(before[-1])
    assert (again["reply_ids"], again["key"]) == (first["reply_ids"], first["key"])
    assert again["log_likelihoods"] == pytest.approx(first["log_likelihoods"], abs=1e-4)


def test_names_may_change_and_bytes_may_not(tmp_path: Path, counted: Counted) -> None:
    items = tmp_path / "items.jsonl"
    counted.run(items)
    counted.asked = 0
    models = [NamedModel("other name", lambda: counted.model(0), lambda: "x0")]
    evaluate_models(models, [NamedSet("other set", RECORDS[3:])], items=items, max_new_tokens=3)
    assert counted.asked == 0
    assert {json.loads(line)["model"] for line in items.read_text().splitlines()} == {"other name"}
    counted.run(items, digest="y")
    assert counted.asked == 2 * len(RECORDS)


@pytest.mark.parametrize("change", [{"question": "Who?"}, {"perturbed": ("cook",)}])
def test_what_is_asked_is_part_of_the_key(tmp_path: Path, counted: Counted, change: dict[str, Any]) -> None:
    items = tmp_path / "items.jsonl"
    counted.run(items)
    counted.asked = 0
    models = [NamedModel("m0", lambda: counted.model(0), lambda: "x0")]
    changed = [RECORDS[0].model_copy(update=change), *RECORDS[1:]]
    evaluate_models(models, [NamedSet("forget", changed)], items=items, max_new_tokens=3)
    assert counted.asked == 1


def test_a_model_in_memory_has_no_digest_and_is_asked_again(tmp_path: Path, counted: Counted) -> None:
    items = tmp_path / "items.jsonl"
    for _ in range(2):
        models = [NamedModel("m0", lambda: counted.model(0))]
        evaluate_models(models, [NamedSet("forget", RECORDS)], items=items, max_new_tokens=3)
    assert counted.asked == 2 * len(RECORDS)
    assert len(items.read_text().splitlines()) == len(RECORDS)


@pytest.mark.parametrize("content", ['{"subject": "1"}\n', "a picture of a cat", "[]\n[]\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, counted: Counted, content: str) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text(content)
    with pytest.raises(InputError, match=r"items\.jsonl, line 1: not an item of an evaluation"):
        counted.run(items)
    assert items.read_text() == content
    assert counted.asked == 0
    with pytest.raises(InputError, match="does not exist; create it first"):
        counted.run(tmp_path / "missing" / "items.jsonl")


def test_the_digest_is_of_the_bytes_not_of_the_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "README.md").write_text(name)
    same = model_digest(tmp_path / "one", "auto")
    assert model_digest(tmp_path / "two", "auto") == same
    assert model_digest(tmp_path / "one", "float32") != same
    (tmp_path / "two" / "model.safetensors").write_bytes(b"Weights")
    assert model_digest(tmp_path / "two", "auto") != same


def test_items_can_be_scored_as_answers_given_elsewhere(tmp_path: Path, counted: Counted) -> None:
    from mllmeraser.evaluation.prepared import read_answers

    items = tmp_path / "items.jsonl"
    results = counted.run(items)
    answers = [read_answers(name, items) for name in ("m0", "m1")]
    again = evaluate_models(answers, [NamedSet("forget", RECORDS)])
    assert again.file() == replace(results, items=again.items).file() == results.file()
