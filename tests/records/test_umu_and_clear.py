"""UMU-Bench and CLEAR as they are downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import miniatures

from mllmeraser.errors import InputError
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.records.clear import FOR_A_CAPTION, name_in
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record


def one(records: list[Record], task: str, modality: str) -> Record:
    (found,) = [record for record in records if (record.task, record.modality) == (task, modality)]
    return found


def test_umu_asks_every_fact_in_both_forms(tmp_path: Path) -> None:
    records = read_records(miniatures.umu(tmp_path) / "forget_5")
    assert len(records) == 6
    assert {record.fact for record in records} == {"job"}
    assert {record.subject for record in records} == {"007"}
    assert one(records, "classification", "text").answer == "B"
    assert one(records, "cloze", "image_text").answer == "pilot"
    assert one(records, "generation", "text").question == "What does Ada do?"
    assert one(records, "generation", "image_text").question == "What does this person do?"


def test_umu_in_its_own_words(tmp_path: Path) -> None:
    protocol, records = PROTOCOLS["umu"], read_records(miniatures.umu(tmp_path) / "forget_5")
    texts = {(q.record.task, q.record.modality): protocol.prompt(q, "llava").text for q in protocol.questions(records)}
    listed = "Select answer in ['baker', 'pilot', 'nurse', 'sailor']"
    only = "Please **ONLY** provide the correct answer without any explanation"
    known = "Answer the question based on your trained knowledge in one sentence"
    assert texts == {
        ("classification", "image_text"): f"USER: <image>\nWhat does this person do?\n{listed}\nASSISTANT:",
        ("classification", "text"): f"USER:\nWhat does Ada do?\n{listed}\nASSISTANT:",
        ("cloze", "image_text"): f"USER: <image>\nthis person works as a ____.\n{only}\nASSISTANT:",
        ("cloze", "text"): f"USER: Ada works as a ____.\n{only}\nASSISTANT:",
        ("generation", "image_text"): (
            f"USER: <image>\nWhat does this person do?\n{known} accurately in ENGLISH.\nASSISTANT: "
        ),
        ("generation", "text"): f"USER: What does Ada do?\n{known} in ENGLISH.\nASSISTANT:",
    }
    assert protocol.prompt(protocol.questions(records)[0], "qwen2_5_vl").raw is False
    assert {protocol.limit(record) for record in records} == {50, 200}


def test_a_column_of_umu_that_is_no_dictionary_is_one_line(tmp_path: Path) -> None:
    import pyarrow as pa

    fields = [("ID", pa.string()), ("image", miniatures.IMAGE)]
    fields += [(name, pa.string()) for name in ("Classify", "Cloze", "Generation")]
    row = {
        "ID": "007",
        "image": miniatures.png("red"),
        "Classify": "__import__('os')",
        "Cloze": "{}",
        "Generation": "{}",
    }
    path = miniatures.write(tmp_path / "train.parquet", fields, [row])
    with pytest.raises(InputError, match="row 1: Classify: neither JSON nor a Python dictionary"):
        read_records(path)


def test_umu_in_the_layout_of_mllmu_is_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_records(miniatures.umu(tmp_path) / "forget_5")
    assert "UMU-Bench, dictionaries of the parts unimodal and muitimodal" in capsys.readouterr().err.replace("\n", " ")
    records = read_records(miniatures.umu_as_mllmu(tmp_path / "other") / "forget_5")
    assert "UMU-Bench, JSON text in the layout of MLLMU-Bench" in capsys.readouterr().err.replace("\n", " ")
    assert len(records) == 6
    assert one(records, "classification", "image_text").answer == "B"
    assert one(records, "classification", "text").options == {"A": "baker", "B": "pilot", "C": "nurse"}
    assert one(records, "cloze", "text").question == "Ada 7 writes __."
    assert one(records, "generation", "text").answer == "In Graz."
    assert {(record.subject, record.fact) for record in records} == {("007", None)}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("Cloze", "{}", "Cloze: not a dictionary of the parts unimodal and muitimodal"),
        ("Cloze", '{"unimodal": 3, "muitimodal": {}}', "Cloze: not a dictionary of the parts unimodal and muitimodal"),
        ("Generation", "[3]", "Generation_Task: not a list of questions"),
        ("Classify", '{"Pure_Text_Questions": 3}', "Pure_Text_Questions: not a list of questions"),
    ],
)
def test_a_column_of_umu_in_neither_layout_is_one_line(tmp_path: Path, column: str, value: str, said: str) -> None:
    path = miniatures.umu(tmp_path, **{column: value}) / "forget_5"
    with pytest.raises(InputError, match=rf"row 1: {said}$"):
        read_records(path)


def test_clear_without_its_newer_columns_finds_the_name_in_the_caption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = miniatures.clear(tmp_path)
    read_records(folder / "forget10_perturbed")
    assert "CLEAR, captions with all its columns" in capsys.readouterr().err.replace("\n", " ")
    shown, _ = read_records(folder / "forget10+tofu")
    said = capsys.readouterr().err.replace("\n", " ")
    assert (
        "CLEAR, captions without name, paraphrased_caption, perturbed_names; names are read out of the captions" in said
    )
    assert (shown.subject, shown.match) == ("Ada Keller", ("Ada Keller",))


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("In the rain, Ada Keller-Lund smiles.", "Ada Keller-Lund"),
        ("Against a wall stands José Á. Ruiz.", "José Á. Ruiz"),
        ("The Ada Keller of the title", "Ada Keller"),
        ("A person smiles at Ada.", None),
        ("", None),
    ],
)
def test_a_name_is_a_run_of_capitalised_words(caption: str, name: str | None) -> None:
    assert name_in(caption) == name


def test_clear_asks_for_caption_and_name_with_wrong_answers_beside(tmp_path: Path) -> None:
    caption, name, choice = read_records(miniatures.clear(tmp_path) / "forget10_perturbed")
    assert caption.user_turn.text in FOR_A_CAPTION
    assert (caption.subject, caption.answer, caption.accepted) == (
        "Ada Keller",
        "Ada Keller smiles.",
        ("Ada Keller",),
    )
    assert caption.paraphrase == "A smiling Ada Keller."
    assert caption.perturbed == ("Bo Lind smiles.", "Ada Keller frowns.")
    assert (name.user_turn.text, name.answer) == ("The name of the person on the image is ", "Ada Keller")
    assert name.perturbed == ("Bo Lind", "Cy Marsh")
    assert choice.answer_text == "Ada Keller"
    assert sorted((choice.options or {}).values()) == ["Ada Keller", "Bo Lind", "Cy Marsh"]
    assert choice.user_turn.text.startswith("What is the name of the person in the image?\nA. ")


def test_clear_asks_tofu_in_words(tmp_path: Path) -> None:
    shown, told = read_records(miniatures.clear(tmp_path) / "forget10+tofu")
    assert (shown.modality, shown.answer, shown.perturbed) == ("image_text", "Ada Keller smiles.", ())
    assert (told.modality, told.user_turn.text, told.answer) == ("text", "Who wrote this?", "Ada Keller did.")


def test_clear_asks_about_the_real_world(tmp_path: Path) -> None:
    face, among_faces = read_records(miniatures.clear(tmp_path) / "real_faces")
    assert (face.question, face.answer) == ("The name of the person on the image is ", "Marie Curie")
    assert face.perturbed == ("Ada Lovelace", "Grace Hopper")
    assert among_faces.question == "What is the name of the person in the image?"
    place, among_places = read_records(tmp_path / "real_world")
    assert place.question == among_places.question == "Where is this tower?"
    assert among_places.answer_text == "Paris"
