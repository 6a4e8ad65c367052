"""`mllmeraser records`: what must not be told, shown, written, corrected and fed back."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from builders import miniatures
from click.testing import CliRunner, Result
from PIL import Image

import mllmeraser
from mllmeraser.commands.records import records
from mllmeraser.errors import InputError
from mllmeraser.records.prompts import Picture
from mllmeraser.records.read import read_records

OPTIONS = {"A": "Graz", "B": "Riga"}
LINES = [
    {"subject": "1", "question": "Where was she born?", "answer": "She was born in Riga.", "task": "generation"},
    {"subject": "1", "question": "Born in __.", "answer": "Riga", "task": "cloze", "image": "face.png"},
    {"subject": "2", "question": "Where?", "answer": "B", "task": "classification", "options": OPTIONS},
    {"subject": "2", "question": "Where?", "answer": "In Riga.", "task": "generation", "match": "Riga"},
    {
        "subject": "2",
        "question": "Where?",
        "answer": "In Riga.",
        "task": "generation",
        "facts": "Latvia",
        "prompt": "W?",
    },
    {"subject": "2", "question": "Is she tall?", "answer": "Yes.", "task": "generation"},
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4), "red").save("face.png")
    Path("forget.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(records, arguments, standalone_mode=False)


def test_every_record_is_shown_with_its_facts_and_their_source(data: Path) -> None:
    printed = run("forget.jsonl").stdout
    assert "1: Where was she born? She was born in Riga.\n    Riga (derived)" in printed
    assert "2: Is she tall? Yes.\n    – (without a fact)" in printed
    assert printed.endswith(
        "6 records about 2 subjects; facts: 1 given, 1 from match, 2 the value itself, 1 derived, 1 without a fact\n"
    )
    document = json.loads(run("forget.jsonl", "--json").stdout)
    assert [(entry["facts"], entry["source"]) for entry in document["records"]] == [
        (["Riga"], "derived"),
        (["Riga"], "value"),
        (["Riga"], "value"),
        (["Riga"], "match"),
        (["Latvia"], "given"),
        ([], "none"),
    ]
    assert document["subjects"] == 2 and document["output"] is None


def test_what_is_written_is_read_back_the_same_and_may_be_corrected(data: Path) -> None:
    (data / "out").mkdir()
    result = run("forget.jsonl", "-o", "out/facts.jsonl")
    assert result.exception is None
    assert "correct the facts in out/facts.jsonl" in result.stderr
    first, again = mllmeraser.records("forget.jsonl").records, read_records(Path("out/facts.jsonl"))
    assert list(first) == again
    corrected = Path("out/facts.jsonl").read_text().replace('"facts": ["Riga"]', '"facts": ["Daugava"]')
    Path("out/facts.jsonl").write_text(corrected)
    shown = mllmeraser.records("out/facts.jsonl")
    assert shown.records[0].facts == ("Daugava",) and shown.sources[0] == "given"
    with pytest.raises(InputError, match="exists; choose another file"):
        mllmeraser.records("forget.jsonl", "out/facts.jsonl")


def test_pictures_of_a_benchmark_are_written_beside_the_file(tmp_path: Path) -> None:
    bench = miniatures.mllmu(tmp_path / "MLLMU-Bench") / "ft_Data"
    mllmeraser.records(bench, tmp_path / "facts.jsonl")
    before, after = read_records(bench), read_records(tmp_path / "facts.jsonl")
    assert [record.facts for record in after] == [("Ada 10",), ("Graz",)]
    stored = before[0].image
    assert isinstance(stored, Picture) and isinstance(after[0].image, Path)
    assert after[0].image.read_bytes() == stored.data
    assert [path.name for path in (tmp_path / "facts-images").iterdir()] == ["00000.png"]


def test_the_call_stays_a_call_when_the_room_of_its_name_is_imported() -> None:
    from mllmeraser.records import record as record

    assert inspect.isfunction(mllmeraser.records)
