"""UMU-Bench and CLEAR as they are downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import miniatures

from mllmeraser.errors import InputError
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.records.clear import FOR_A_CAPTION
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
    with pytest.raises(InputError, match="row 1: Classify: not a dictionary of the parts unimodal and muitimodal"):
        read_records(path)


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
