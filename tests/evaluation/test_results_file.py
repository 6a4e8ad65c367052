"""The results document: what is written is read again, and nothing but numbers is needed for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders.records import right, some_records
from pydantic import ValidationError

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.run import score_replies
from mllmeraser.judging.results_file import Method, Outcomes, ResultsFile, read_results

RECORDS = some_records()
SETS = [NamedSet("forget", RECORDS[:12]), NamedSet("retain", RECORDS[12:])]


@pytest.fixture(scope="module")
def made() -> ResultsFile:
    said = [right(record) for record in RECORDS]
    return score_replies({"base": said, "steered": said}, SETS).file(output="results.json", activations=[])


def test_what_is_written_is_read_again(made: ResultsFile, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(made.document()))
    again = read_results(path)
    assert again.rows == made.rows and again.summary == made.summary
    assert json.dumps(again.document()) == json.dumps(made.document())


def test_keys_stand_in_the_order_of_the_documentation(made: ResultsFile) -> None:
    document = made.document()
    head = ["schema", "protocol", "judge", "base", "reference", "tier", "forgotten"]
    parts = [
        "rows",
        "unjudged",
        "cross_checks",
        "gates",
        "gate_quality",
        "modalities",
        "summary",
        "output",
        "activations",
    ]
    assert list(document) == [*head, *parts]
    row = ["model", "set", "task", "modality", "n", "subjects", "accuracy", "rouge_l", "refusal", "identical_to_base"]
    more = ["rouge_l_recall", "bleu", "accuracy_substring", "probability", "truth_ratio", "partly", "share"]
    assert list(document["rows"][0]) == [*row, *more, "intervals", "outcomes", "choice"]


def test_what_was_not_given_is_not_written_and_null_is() -> None:
    run = Method(name="ga", seed=0, forgotten=0.5, seconds=None)
    document = ResultsFile(methods=[run]).document()
    assert document == {"schema": 1, "methods": [{"name": "ga", "seed": 0, "seconds": None, "forgotten": 0.5}]}


def test_later_keys_are_ignored(made: ResultsFile, tmp_path: Path) -> None:
    document = made.document()
    document["rows"][0]["mood"] = document["rows"][0]["outcomes"]["mood"] = document["mood"] = "good"
    (tmp_path / "results.json").write_text(json.dumps(document))
    assert read_results(tmp_path / "results.json").document() == made.document()


def test_what_a_reader_would_refuse_cannot_be_made(made: ResultsFile) -> None:
    shares = made.rows[0].outcomes.model_dump()
    for wrong in (1.5, "1", float("nan")):
        with pytest.raises(ValidationError):
            Outcomes(**{**shares, "correct": wrong})


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match="; give what `mllmeraser evaluate -o` wrote") as error:
            read_results(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_it_is_read_without_torch() -> None:
    code = "import mllmeraser.judging.results_file, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_number_that_is_not_finite_is_refused(made: ResultsFile, tmp_path: Path, value: str) -> None:
    document = made.document()
    document["rows"][0]["rouge_l"] = "here"
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document).replace('"here"', value))
    with pytest.raises(InputError, match="rouge_l"):
        read_results(path)
