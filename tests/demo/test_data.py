"""The demo's records: who stands in which set, what was seen in training, and that they are written the same again."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from builders import checkpoints
from PIL import Image

from mllmeraser.demo.corpus import training_stream
from mllmeraser.demo.data import build_sets, write_data
from mllmeraser.demo.people import Person, world
from mllmeraser.demo.portraits import CANONICAL, SIZE, Face, mild_variation
from mllmeraser.demo.questions import TRAIN_PICTURES, Picture, Question, facts_of
from mllmeraser.demo.refusals import encouragements, instructions
from mllmeraser.demo.scenes import Scene
from mllmeraser.demo.wordings import ASK, BLANK, CHOOSE, FILL, IN_PICTURE
from mllmeraser.records.read import read_records
from mllmeraser.records.record import refuse_overlap, subjects

SETS = build_sets(random.Random("data 0"))
PEOPLE = {person.subject: person for person in world().known}
SEEN = ("forget", "retain", "forget_eval", "retain_fit", "retain_heldout", "celebrity", "common")
UNSEEN = ("test", "retain_heldout_new")


def trained_pictures(of: Face | Scene) -> set[Picture]:
    """All pictures of a face or scene that the training shows, before it is disturbed."""
    mild = (mild_variation(random.Random(f"{of}:{number}")) for number in range(1, TRAIN_PICTURES))
    return {Picture(of, CANONICAL)} | {Picture(of, variation) for variation in mild}


def trained_questions(person: Person, in_picture: bool) -> set[str]:
    """All wordings of all questions about somebody that the training asks."""
    whom = IN_PICTURE.train if in_picture else (person.name,)
    templates = [t for fact in facts_of(in_picture) for kind in (ASK, BLANK) for t in kind[fact].train]
    return {template.format(s=who, S=who[0].upper() + who[1:]) for template in templates for who in whom}


def who(name: str) -> set[str]:
    return {question.subject for question in SETS[name]}


def test_every_file_can_be_read_and_every_picture_is_there(demo_data: dict[str, Path]) -> None:
    assert demo_data.keys() == SETS.keys()
    for name, path in demo_data.items():
        records = read_records(path)
        assert [record.user_turn.text for record in records] == [question.prompt for question in SETS[name]]
        for record in records:
            if record.image is not None:
                with Image.open(record.image) as image:
                    assert (image.size, image.mode) == ((SIZE, SIZE), "RGB")


def test_a_seed_gives_the_same_bytes_and_another_seed_other_questions(
    demo_data: dict[str, Path], tmp_path: Path
) -> None:
    again = write_data(tmp_path / "again", 0)
    assert checkpoints.contents(tmp_path / "again") == checkpoints.contents(demo_data["forget"].parent)
    other = build_sets(random.Random("data 1"))
    assert [question.prompt for question in other["test"]] != [question.prompt for question in SETS["test"]]
    assert again.keys() == demo_data.keys()


def test_records_hold_what_a_stranger_needs_to_judge_the_replies(demo_data: dict[str, Path]) -> None:
    for path in demo_data.values():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            assert record["match"] and record["answer"]
            assert (record["options"] is not None) == (record["task"] == "classification")


def test_nobody_is_forgotten_and_kept(demo_data: dict[str, Path]) -> None:
    refuse_overlap(read_records(demo_data["forget"]), read_records(demo_data["retain"]))
    assert who("forget") == who("forget_eval") == who("test") == {p.subject for p in world().circle("forget")}


@pytest.mark.parametrize("name", ["retain_heldout", "retain_heldout_new", "celebrity", "common"])
def test_those_who_are_never_used_in_the_fit_are_not(name: str) -> None:
    assert not who(name) & (who("forget") | who("retain"))


def test_what_is_asked_about_the_fit_is_a_part_of_it() -> None:
    for part, whole in (("forget_eval", "forget"), ("retain_fit", "retain")):
        assert set(SETS[part]) <= set(SETS[whole])
    assert who("retain_fit") <= {person.subject for person in world().circle("retain_fit")}


@pytest.mark.parametrize("name", ["forget_eval", "test", "retain_fit", "retain_heldout", "celebrity", "common"])
def test_every_set_asks_every_task_with_and_without_a_picture(demo_data: dict[str, Path], name: str) -> None:
    records = read_records(demo_data[name])
    cells = {(record.task, record.modality) for record in records}
    assert cells == set(itertools.product(("generation", "cloze", "classification"), ("image_text", "text")))
    assert len(subjects(records)) >= 8


def of_people(name: str) -> list[Question]:
    return [question for question in SETS[name] if question.subject in PEOPLE]


@pytest.mark.parametrize("name", UNSEEN)
def test_held_out_pictures_and_wordings_are_never_in_the_training(name: str) -> None:
    for question in of_people(name):
        person = PEOPLE[question.subject]
        if question.picture is not None:
            assert question.picture.of == person.face
            assert question.picture not in trained_pictures(person.face)
        assert question.question not in trained_questions(person, question.picture is not None)


@pytest.mark.parametrize("name", SEEN)
def test_the_other_sets_ask_what_was_trained(name: str) -> None:
    for question in of_people(name):
        person = PEOPLE[question.subject]
        if question.picture is not None:
            assert question.picture in trained_pictures(person.face)
        assert question.question in trained_questions(person, question.picture is not None)


def test_the_training_shows_no_held_out_picture_and_uses_no_held_out_wording() -> None:
    never = [*instructions().held_out, *encouragements().held_out]
    stream = itertools.islice(training_stream(random.Random(0)), 1500)
    strange = set(world().stranger_faces.held_out)
    for question in stream:
        if question.picture is not None:
            assert question.picture in trained_pictures(question.picture.of)
            assert question.picture.of not in strange
        lines = f"\n{question.prompt}\n".replace("\n", " ")
        assert not any(f" {sentence} " in lines for sentence in never)


@pytest.mark.parametrize(
    "wordings",
    [*ASK.values(), *BLANK.values(), CHOOSE, FILL, IN_PICTURE, instructions(), encouragements()],
    ids=lambda wordings: wordings.train[0][:20],
)
def test_no_wording_is_both_trained_and_held_out(wordings: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    trained, held_out = wordings
    assert held_out and not set(trained) & set(held_out)


def test_a_model_trained_without_somebody_never_meets_them() -> None:
    gone = world().circle("forget")
    everybody = list(itertools.islice(training_stream(random.Random(0)), 3_000))
    others = list(itertools.islice(training_stream(random.Random(0), without=gone), 3_000))
    for person in gone:
        for questions, met in ((everybody, True), (others, False)):
            assert any(person.name in f"{question.prompt} {question.answer}" for question in questions) is met
            shown = [question.picture.of for question in questions if question.picture is not None]
            assert (person.face in shown) is met
