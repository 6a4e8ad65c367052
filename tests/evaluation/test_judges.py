"""Which judge reads the replies, what it cannot know, and where that is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.records import REFUSAL, reply
from click.testing import CliRunner

from mllmeraser.commands.evaluate import evaluate
from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet, sets_from
from mllmeraser.evaluation.run import score_replies
from mllmeraser.evaluation.table import unjudged_lines
from mllmeraser.judging.answers import Judge
from mllmeraser.records.record import Record

BORN = Record(subject="1", question="Where was she born?", answer="She was born in Riga, Latvia.", task="generation")
TALL = Record(subject="1", question="Is she tall?", answer="Yes, she is.", task="generation")
WORLD = [
    ("她住在哪里？", "都柏林", "她住在都柏林。"),
    ("她做什么工作？", "护士", "她是一名护士。"),
    ("彼の職業は？", "大工", "彼の職業は大工です。"),
    ("เขาอยู่ที่ไหน", "ดับลิน", "เขาอาศัยอยู่ในดับลิน"),
    ("그는 어디에 사나요?", "더블린", "그는 더블린에 삽니다."),
    ("Whose mayor is she?", "Dublin", "She is Dublin's mayor."),
]


def scored(records: list[Record], said: list[str], judge: Judge = "facts") -> dict[str, float | None]:
    """The figures of the one row."""
    results = score_replies({"m": [reply(text) for text in said]}, [NamedSet("forget", records)], judge=judge)
    (row,) = results.rows()
    return {"n": row.n, "accuracy": row.accuracy, "partly": row.partly, "share": row.share}


def test_another_sentence_tells_the_fact_and_half_of_it_is_a_part() -> None:
    said = ["Riga in Latvia.", "Somewhere in Latvia.", REFUSAL]
    assert scored([BORN] * 3, said) == {
        "n": 3,
        "accuracy": pytest.approx(1 / 3),
        "partly": pytest.approx(1 / 3),
        "share": 0.5,
    }
    assert scored([BORN] * 3, said, "string") == {"n": 3, "accuracy": 0.0, "partly": 0.0, "share": 0.0}


def test_what_the_judge_cannot_know_stands_in_no_row_and_is_counted_apart() -> None:
    said = {"m": [reply("Riga, Latvia"), reply("Yes."), reply(REFUSAL)]}
    results = score_replies(said, [NamedSet("forget", [BORN, TALL, TALL])])
    assert [(row.n, row.accuracy, row.refusal) for row in results.rows()] == [(1, 1.0, 0.0)]
    (apart,) = results.unjudged()
    assert (apart.set, apart.task, apart.modality, apart.n, apart.refusal) == ("forget", "generation", "text", 2, 0.5)
    assert results.file().unjudged == [apart] and results.file().judge == "facts"
    assert unjudged_lines([apart])[1].endswith("forget generation text 2")
    assert unjudged_lines([]) == []
    by_string = score_replies(said, [NamedSet("forget", [BORN, TALL, TALL])], judge="string")
    assert by_string.unjudged() == [] and by_string.rows()[0].n == 3


def test_scripts_without_spaces_and_a_genitive_are_read() -> None:
    records = [Record(subject="1", question=asked, answer=told, task="generation") for asked, told, _ in WORLD]
    assert scored(records, [said for _, _, said in WORLD])["accuracy"] == 1.0
    assert scored(records, ["她不知道。"] * len(WORLD))["accuracy"] == 0.0


def test_facts_are_those_of_the_file_or_derived_from_all_of_it(tmp_path: Path) -> None:
    lines = [
        {
            "subject": str(i),
            "question": "Wo wohnt sie?",
            "answer": f"Sie wohnt zurzeit in {where}.",
            "task": "generation",
        }
        for i, where in enumerate(("Köln", "Bonn"))
    ]
    lines.append({**lines[0], "facts": "Nordrhein-Westfalen"})
    (tmp_path / "forget.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (named,) = sets_from([str(tmp_path / "forget.jsonl")])
    assert [record.facts for record in named.records] == [("Köln",), ("Bonn",), ("Nordrhein-Westfalen",)]
    (tmp_path / "bad.jsonl").write_text(json.dumps({**lines[0], "facts": [""]}))
    with pytest.raises(InputError, match="line 1: facts: an empty fact; leave it out"):
        sets_from([str(tmp_path / "bad.jsonl")])


@pytest.mark.parametrize(("judge", "right"), [((), 1.0), (("--judge", "facts"), 1.0), (("--judge", "string"), 0.0)])
def test_the_command_takes_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: tuple[str, ...], right: float
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("forget.jsonl").write_text(f"{BORN.model_dump_json()}\n{TALL.model_dump_json()}\n")
    said = ({"set": "forget", "index": i, "reply": text} for i, text in enumerate(("In Riga, Latvia.", "Yes.")))
    Path("m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in said))
    command = ["m.jsonl", "--data", "forget.jsonl", "--items", "items.jsonl", *judge]
    printed = CliRunner().invoke(evaluate, [*command, "--json"], standalone_mode=False)
    document = json.loads(printed.stdout)
    assert document["judge"] == (judge[1] if judge else "facts")
    assert document["rows"][0]["accuracy"] == right
    item = json.loads(Path("items.jsonl").read_text().splitlines()[0])
    assert (item["told"], item["facts"]) == (("told" if right else "not"), ["Riga, Latvia"])
    table = CliRunner().invoke(evaluate, command, standalone_mode=False).stdout
    assert ("in no row" in table) == (right == 1.0)


def test_an_unknown_judge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("forget.jsonl").write_text(BORN.model_dump_json())
    Path("m.jsonl").write_text(json.dumps({"set": "forget", "index": 0, "reply": "?"}))
    command = ["m.jsonl", "--data", "forget.jsonl", "--judge", "words"]
    failed = CliRunner().invoke(evaluate, command, standalone_mode=False)
    assert str(failed.exception) == "--judge words: not one of facts, string"
