"""Prepared replies of known rank land in that rank; the JSON keeps its keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from builders.records import REFUSAL, always, reply, right, some_records

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedModel, NamedSet, models_from, sets_from
from mllmeraser.evaluation.items import Reply, is_readable
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.run import evaluate_models, score_replies
from mllmeraser.evaluation.table import WIDTH, plain_text, summary_lines
from mllmeraser.judging.results_file import OUTCOMES, Row

RECORDS = some_records()
FORGET = NamedSet("forget", RECORDS)
FLAT = (-1.0, -1.0, -1.0, -1.0)
FIRST = (-0.1, -5.0, -5.0, -5.0)
REPLIES: dict[str, list[Reply]] = {
    "vanilla": [right(record) for record in RECORDS],
    "refuse-all": always(REFUSAL, RECORDS, FLAT),
    "constant": always("A", RECORDS, FIRST),
    "empty": always("", RECORDS, FLAT),
    "gibberish": always("xq zvrt#% blrp ;;; kkq", RECORDS, FLAT),
    "loop": always("the the the the the the", RECORDS, FLAT),
    "leak": [reply(f"{REFUSAL} {right(record).text}", right(record).log_likelihoods) for record in RECORDS],
    "stranger": always("This person is unknown to me.", RECORDS, FLAT),
}


@pytest.fixture(scope="module")
def results() -> Results:
    return score_replies(REPLIES, [FORGET])


def row(results: Results, model: str, task: str) -> Row:
    return next(row for row in results.rows() if row.model == model and row.task == task)


@pytest.mark.parametrize(
    ("model", "accuracy", "refusal", "outcome"),
    [
        ("vanilla", 1.0, 0.0, "correct"),
        ("refuse-all", 0.0, 1.0, "refusal"),
        ("constant", 0.0, 0.0, "wrong"),
        ("empty", 0.0, 0.0, "degenerate"),
        ("gibberish", 0.0, 0.0, "unparsable"),
        ("loop", 0.0, 0.0, "degenerate"),
        ("leak", 1.0, 0.0, "correct"),
        ("stranger", 0.0, 0.0, "wrong"),
    ],
)
@pytest.mark.parametrize("task", ["generation", "cloze"])
def test_a_fixture_of_known_rank_lands_there(
    results: Results, task: str, model: str, accuracy: float, refusal: float, outcome: str
) -> None:
    found = row(results, model, task)
    assert (found.accuracy, found.refusal) == (accuracy, refusal)
    assert found.outcomes.model_dump() == {name: float(name == outcome) for name in OUTCOMES}


@pytest.mark.parametrize(
    ("model", "accuracy", "named", "refusal"),
    [
        ("vanilla", 1.0, 1.0, 0.0),
        ("refuse-all", 0.0, 0.0, 1.0),
        ("constant", 0.25, 0.25, 0.0),
        ("empty", 0.0, 0.0, 0.0),
        ("gibberish", 0.0, 0.0, 0.0),
        ("leak", 1.0, 0.0, 0.0),
    ],
)
def test_multiple_choice_of_known_rank(
    results: Results, model: str, accuracy: float, named: float, refusal: float
) -> None:
    found = row(results, model, "classification")
    assert found.accuracy == accuracy
    assert found.choice is not None and found.choice.accuracy_named == named
    if model != "leak":  # its text, "… request. A", names a letter, not the job that is looked for
        assert found.refusal == refusal


def test_identical_to_base_is_one_for_the_base_and_compares_tokens(results: Results) -> None:
    assert {r.identical_to_base for r in results.rows() if r.model == "vanilla"} == {1.0}
    assert row(results, "refuse-all", "cloze").identical_to_base == 0.0
    said = [Reply("same words", (1, 2), FLAT) for _ in RECORDS]
    other = [Reply("same words", (1, 3), FLAT) for _ in RECORDS]
    assert {r.identical_to_base for r in score_replies({"a": said, "b": other}, [FORGET]).rows() if r.model == "b"} == {
        0.0
    }


def test_the_document_has_the_promised_keys(results: Results) -> None:
    document = json.loads(json.dumps(results.file(output="DIR").document(), allow_nan=False))
    told = {"schema", "protocol", "judge", "base", "reference", "tier", "forgotten", "output"}
    assert set(document) == told | {
        "rows",
        "unjudged",
        "cross_checks",
        "gates",
        "gate_quality",
        "modalities",
        "summary",
    }
    assert (document["schema"], document["base"], document["output"]) == (1, "vanilla", "DIR")
    promised = {"model", "set", "task", "modality", "n", "accuracy", "rouge_l", "refusal", "identical_to_base"}
    for found in document["rows"]:
        others = {"rouge_l_recall", "bleu", "accuracy_substring", "probability", "truth_ratio"}
        assert set(found) == promised | {"subjects", "intervals", "outcomes", "choice", "partly", "share"} | others
        assert sum(found["outcomes"].values()) == pytest.approx(1.0)
        assert found["n"] == found["subjects"] == 8
        assert set(found["intervals"]) == {"accuracy", "rouge_l", "refusal", "identical_to_base"} | others
        for name, intervals in found["intervals"].items():
            if found[name] is None:
                assert intervals is None
                continue
            assert set(intervals) == {"wilson", "by_subject"}
            low, high = intervals["by_subject"]
            assert low - 1e-12 <= found[name] <= high + 1e-12
    assert "output" not in results.file().document()


def test_the_document_holds_no_text_of_a_record_and_the_items_do(results: Results) -> None:
    document = json.dumps(results.file().document())
    assert not any(record.question in document or f'"{record.subject}"' in document for record in RECORDS)
    lines = list(results.item_lines())
    assert len(lines) == len(RECORDS) * len(REPLIES)
    item = json.loads(lines[0])
    assert (item["reply"], item["outcome"], item["subject"]) == (RECORDS[0].answer, "correct", "000")


def test_rows_come_by_model_set_task_and_modality() -> None:
    sets = [NamedSet("one", RECORDS[:3]), NamedSet("two", RECORDS[3:6])]
    said = [right(record) for record in RECORDS[:6]]
    found = [(r.model, r.set, r.task) for r in score_replies({"b": said, "a": said}, sets).rows()]
    tasks = ("generation", "cloze", "classification")
    assert found == [(m, s, t) for m in ("b", "a") for s in ("one", "two") for t in tasks]


@pytest.mark.parametrize("reply", ["Ada lives in Dublin.", "1985", "Mr Smith", "東京", "Dr. No", "a"])
def test_ordinary_replies_are_readable(reply: str) -> None:
    assert is_readable(reply)


def test_the_table_is_plain_and_narrow(results: Results) -> None:
    text = plain_text(results.rows())
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    for model in REPLIES:
        assert model in text
    assert "25" in text
    assert plain_text([]) == ""


def test_the_summary_is_a_line_a_model() -> None:
    sets = [NamedSet("forget", RECORDS[:12]), NamedSet("retain", RECORDS[12:])]
    summary = score_replies(REPLIES, sets, reference="stranger").file().summary
    found = summary_lines(summary)
    assert max(map(len, found[:-1])) <= WIDTH
    (vanilla,) = [line.split() for line in found if line.startswith("vanilla")]
    assert vanilla[1:3] == ["100.0", "100.0"]
    assert vanilla[-1] == "–"  # nothing was weighed that a truth ratio could be made of
    kept_only = score_replies(REPLIES, [NamedSet("retain", RECORDS)]).file().summary
    assert summary_lines(kept_only) == []


def fail() -> NoReturn:
    raise AssertionError("a model was loaded before the call was checked")


def model(name: str) -> NamedModel:
    return NamedModel(name, fail)


def test_a_wrong_call_is_one_line_before_anything_is_loaded() -> None:
    for models, sets, said in [
        ([], [FORGET], "no model"),
        ([model("a")], [], "--data"),
        ([model("a"), model("a")], [FORGET], "two models are called 'a'"),
        ([model("a")], [FORGET, FORGET], "two sets are called 'forget'"),
        ([model("a")], [NamedSet("none", [])], "holds no record"),
    ]:
        with pytest.raises(InputError, match=said) as error:
            evaluate_models(models, sets)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="1 replies to 24 records"):
        score_replies({"a": [right(RECORDS[0])]}, [FORGET])


def test_models_and_sets_are_named_by_their_last_part_or_as_told(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tiny", "other", "a=b"):
        shutil.copytree(world / "base", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert [m.name for m in models_from(["tiny", "mine=other", "a=b"])] == ["tiny", "mine", "a=b"]
    with pytest.raises(InputError, match="two models are called 'tiny'"):
        models_from(["tiny", "tiny=other"])
    with pytest.raises(InputError, match="no such directory"):
        models_from(["missing"])
    line = '{"subject": "1", "question": "q", "answer": "a", "task": "cloze"}'
    (tmp_path / "forget.jsonl").write_text(line)
    (tmp_path / "retain.jsonl").write_text(line)
    assert [s.name for s in sets_from(["forget.jsonl", "kept=retain.jsonl"])] == ["forget", "kept"]
    with pytest.raises(InputError, match="two sets are called"):
        sets_from(["forget.jsonl", "forget=retain.jsonl"])
    with pytest.raises(InputError, match="given under two names"):
        sets_from(["a=forget.jsonl", "b=forget.jsonl"])
