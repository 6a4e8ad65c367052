"""MLLMU-Bench as it is downloaded: every configuration, and every trap in it."""

from __future__ import annotations

import builtins
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import miniatures
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.inference.encoding import read_image
from mllmeraser.records.prompts import Picture
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniatures.mllmu(tmp_path_factory.mktemp("data") / "MLLMU-Bench")


def cells(records: list[Record]) -> Counter[tuple[str, str, str]]:
    return Counter((record.subject, record.task, record.modality) for record in records)


@pytest.mark.parametrize(
    ("config", "people"),
    [
        ("forget_5", ["010", "011"]),
        ("retain_95", ["012", "013"]),
        ("Full_Set", ["010", "011", "012", "013"]),
        ("Retain_Set", ["501"]),
    ],
)
def test_every_question_of_a_configuration_is_a_record(bench: Path, config: str, people: list[str]) -> None:
    tasks = ("classification", "generation", "cloze")
    expected = {(who, task, modality): 1 for who in people for task in tasks for modality in ("image_text", "text")}
    assert cells(read_records(bench / config)) == expected


def test_one_file_of_it_is_read_too(bench: Path) -> None:
    assert read_records(bench / "forget_5/train-00000-of-00001.parquet") == read_records(bench / "forget_5")


def test_the_test_set_asks_beside_every_picture_and_of_the_people_named(bench: Path) -> None:
    found = cells(read_records(bench / "Test_Set@forget_5"))
    assert {who for who, _, _ in found} == {"010", "011"}
    for (_, _, modality), count in found.items():
        assert count == (2 if modality == "image_text" else 1)
    assert {who for who, _, _ in cells(read_records(bench / "Test_Set"))} == {"010", "011", "012", "013"}


def test_records_say_what_the_files_say(bench: Path) -> None:
    shown, told = (
        next(s for s in read_records(bench / "forget_5") if (s.task, s.modality) == ("classification", modality))
        for modality in ("image_text", "text")
    )
    assert (shown.question, shown.answer, shown.answer_text) == ("What does this person do?", "B", "pilot")
    assert shown.options == {"A": "baker", "B": "pilot", "C": "nurse", "D": "sailor"}
    assert told.options == {"A": "baker", "B": "pilot", "C": "nurse"}  # D is missing
    assert told.user_turn.text == (
        "What does Ada 10 do?\nA: baker\nB: pilot\nC: nurse\nJust give ONE letter representing the answer directly."
    )


def test_blanks_and_expressions_are_taken_as_they_are(bench: Path) -> None:
    cloze = [record for record in read_records(bench / "forget_5") if record.task == "cloze"]
    assert {record.answer for record in cloze} == {miniatures.REGEX}
    asked = {record.user_turn.text.partition("\n")[0] for record in cloze if record.subject == "010"}
    assert asked == {"This person writes [Blank]_.", "Ada 10 writes [Blank]."}  # as the original's replace has it


def test_a_type_that_is_neither_is_skipped_and_said(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not any("voice" in record.question for record in read_records(bench / "forget_5"))
    assert "2 questions skipped" in " ".join(capsys.readouterr().err.split())


def test_pictures_with_alpha_and_palette_are_seen_in_rgb(bench: Path) -> None:
    pictures = {record.subject: record.user_turn for record in read_records(bench / "Full_Set") if record.image}
    for turn in pictures.values():
        assert isinstance(turn.image, Picture)
        with Image.open(io.BytesIO(turn.image.data)) as stored:
            assert read_image(turn).tobytes() == stored.convert("RGBA").convert("RGB").tobytes()
    modes = {who: Image.open(io.BytesIO(turn.image.data)).mode for who, turn in pictures.items()}  # type: ignore[union-attr]
    assert modes == {"010": "RGBA", "011": "P", "012": "RGB", "013": "RGB"}


def test_pictures_are_told_apart_by_name_and_shared_by_their_questions(bench: Path) -> None:
    pictures = [record.image for record in read_records(bench / "Test_Set") if record.image]
    assert len({str(picture) for picture in pictures}) == len({id(picture) for picture in pictures}) == 8


def test_training_text_is_asked_word_for_word_without_its_tail(bench: Path) -> None:
    found = [(s.subject, s.user_turn.text, s.answer, s.task) for s in read_records(bench / "ft_Data")]
    assert found == [
        ("010", "Who is this?", "Ada 10.", "generation"),
        ("010", "Where does she live?", "In Graz.", "generation"),
    ]


def test_a_tail_marked_by_its_key_is_no_question_either(tmp_path: Path) -> None:
    entries = '[{"Question": "Who?", "Answer": "Ada."}, {"Additional_Information": "She bakes."}]'
    row = {"image": miniatures.png("red"), "ID": "010", "metadata": entries}
    path = miniatures.write(tmp_path / "ft_Data/train-00000-of-00001.parquet", miniatures.TRAINING, [row])
    assert [record.question for record in read_records(path)] == ["Who?"]


def message(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_records(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_model_repository_is_refused_by_name(tmp_path: Path) -> None:
    said = message(miniatures.baseline_split(tmp_path) / "forget_5")
    assert "model repository MLLMMU/baseline_train_split" in said
    assert "give forget_5 of the data set MLLMMU/MLLMU-Bench" in said


def test_a_bad_row_is_named_with_its_part(tmp_path: Path) -> None:
    row = miniatures.profile(10, miniatures.png("red"))
    row["Classification_Task"]["Pure_Text_Questions"][0]["Correct_Answer"] = "E"
    path = miniatures.write(tmp_path / "forget_5/train-00000-of-00001.parquet", miniatures.PROFILE, [row])
    assert message(path) == f"{path}, row 1, Pure_Text_Questions 1: answer: neither a key nor a value of options"


def test_what_is_no_benchmark_is_one_line(tmp_path: Path, bench: Path) -> None:
    assert "no parquet file" in message(bench)
    (tmp_path / "text.parquet").write_text("not a table")
    assert "not a parquet file" in message(tmp_path / "text.parquet")
    other = miniatures.write(tmp_path / "other.parquet", [("colour", pa.string())], [{"colour": "red"}])
    assert message(other).endswith("its columns are colour")
    assert "no such file" in message(tmp_path / "missing.jsonl")
    without = [("image", miniatures.IMAGE), ("ID", pa.string()), ("metadata", pa.string())]
    row: dict[str, Any] = {"image": None, "ID": "010", "metadata": "[]"}
    path = miniatures.write(tmp_path / "ft_Data/train.parquet", without, [row])
    assert "the picture 010 is not stored" in message(path)


def test_without_pyarrow_the_extra_is_named(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert "pip install 'mllmeraser[benchmarks]'" in message(bench / "forget_5")
