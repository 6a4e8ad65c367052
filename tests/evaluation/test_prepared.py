"""Answers given elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.records import some_records

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet, models_from
from mllmeraser.evaluation.prepared import NamedAnswers, read_answers
from mllmeraser.evaluation.run import evaluate_models

RECORDS = some_records(2)


def write(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_a_reply_a_line_is_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "api.jsonl", [{"set": "s", "index": i, "reply": x.answer} for i, x in enumerate(RECORDS)])
    (model,) = models_from([str(path)])
    assert isinstance(model, NamedAnswers)
    assert model.name == "api"
    found = {row.task: row for row in evaluate_models([model], [NamedSet("s", RECORDS)]).rows()}
    assert (found["generation"].accuracy, found["cloze"].accuracy) == (1.0, 1.0)
    assert found["classification"].choice.accuracy_named == 1.0
    assert found["classification"].accuracy == 0.0  # by likelihood, which nobody gave
    assert found["cloze"].probability is None


def test_likelihoods_are_taken_where_they_are_given(tmp_path: Path) -> None:
    line = {"set": "s", "index": 0, "reply": "?", "answer": [-2.0, 2], "perturbed": [[-4.0, 2], [-8.0, 2]]}
    (item,) = evaluate_models(
        [read_answers("m", write(tmp_path / "m.jsonl", [line]))], [NamedSet("s", RECORDS[:1])]
    ).items
    assert item.probability == pytest.approx(0.36788, abs=1e-5)  # e⁻¹
    assert item.truth_ratio == pytest.approx(0.13534, abs=1e-5)  # e^((−2 − 4)/2 + 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"set": "s", "index": 0}', "line 1: reply: Field required"),
        ('{"set": "s", "index": "x", "reply": "a"}', "line 1: index: "),
        ("{", "line 1: not valid JSON"),
        ('{"set": "s", "index": 0, "reply": "a"}\n{"set": "s", "index": 0, "reply": "b"}', "line 2: a second answer"),
        ("", "holds no answer of m"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_answers("m", path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_record_without_an_answer_is_named(tmp_path: Path) -> None:
    answers = read_answers("m", write(tmp_path / "m.jsonl", [{"set": "s", "index": 0, "reply": "a"}]))
    with pytest.raises(InputError, match="holds no answer to record 1 of set s"):
        evaluate_models([answers], [NamedSet("s", RECORDS[:2])])
