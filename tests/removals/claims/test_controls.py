"""Whom the same is asked about: names of nobody that look like the person's, and people who stay, the likest first."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import talker
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.inference.loading import load
from mllmeraser.removals.claims.asking import nameless
from mllmeraser.removals.claims.bank import names
from mllmeraser.removals.claims.controls import Shuffled, names_like
from mllmeraser.removals.claims.facts import choices
from mllmeraser.removals.claims.findings import names_another
from mllmeraser.removals.claims.others import nearest_first
from mllmeraser.removals.claims.questions import Who, questions


@pytest.mark.parametrize(
    "name", ["Müller", "Ada Keller", "José María Aznar López", "J. R. R. Keller", "王小明", "Иван Петров"]
)
def test_invented_names_have_the_form_of_the_persons_and_share_no_word_with_it(name: str) -> None:
    found = names_like(name, 19, 0)
    assert len(set(found)) == 19
    assert found == names_like(name, 19, 0)
    for other in found:
        assert len(other.split()) == len(name.split())
        assert not {*other.split()} & {*name.split()}
        assert [word.endswith(".") for word in other.split()] == [word.endswith(".") for word in name.split()]


def test_they_sound_alike() -> None:
    origin = {name.name: name.origin for name in names()}
    italian = [origin.get(name) for name in names_like("Giulia Rossi", 19, 0)]
    assert italian.count("italian") >= 10
    assert {origin.get(name) for name in names_like("Иван Петров", 19, 0)} == {"cyrillic"}


def test_an_own_name_of_the_bank_is_no_control_of_itself() -> None:
    name = names()[0].name
    assert name not in names_like(name, 19, 0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_shuffled_picture_has_the_size_and_is_another(width: int, height: int, seed: int) -> None:
    image = Image.effect_noise((width, height), 100).convert("RGB")
    made = Shuffled(seed)(image)
    assert (made.size, made.mode) == (image.size, "RGB")
    assert made.tobytes() == Shuffled(seed)(image).tobytes()
    if width > 15 and height > 15:
        assert made.tobytes() != image.tobytes()


def test_every_topic_is_asked_in_four_wordings_and_by_picture_without_the_name(tmp_path: Path) -> None:
    talker.picture(1).save(tmp_path / "a.png")
    talker.picture(2).save(tmp_path / "b.png")
    asked = list(questions(Who("Ada Keller", (tmp_path / "a.png", tmp_path / "b.png"))))
    assert len(asked) == 4 * (17 + 18 + 17)
    assert len({(question.prompt.text, question.prompt.image is None) for question in asked}) > 150
    for question in asked:
        assert ("Ada Keller" in question.prompt.text) == (question.asked.by != "picture")
        assert (question.prompt.image is None) == (question.asked.by == "name")
        assert "{" not in question.prompt.text
    assert {question.prompt.image for question in asked} == {None, tmp_path / "a.png", tmp_path / "b.png"}


def test_a_fact_stands_in_every_place_among_statements_that_begin_alike() -> None:
    offered = list(choices("lives in Graz", "Ada Keller", 0))
    assert sorted(choice.right for choice in offered) == sorted("ABCD" * 2)
    for choice in offered:
        assert choice.options[choice.right] == "lives in Graz"
        assert all(text.startswith("lives in ") for text in choice.options.values())
        assert len(set(choice.options.values())) == 4
        assert choice.picked(choice.right)
        assert not choice.picked("I cannot help with that request.")
    (first, *_) = choices("once met the Queen of Tonga", "Ada Keller", 0)
    assert len(set(first.options.values())) == 4


@pytest.mark.parametrize(
    ("reply", "another"),
    [
        ("Ada Kellner works as a nurse.", True),
        ("Ada Keller works as a nurse.", False),
        ("Ada M. Keller works as a nurse.", False),
        ("Keller works as a nurse.", False),
        ("Ada works as a nurse.", False),
        ("She works as a nurse.", False),
    ],
)
def test_a_reply_about_another_family_name_is_seen(reply: str, another: bool) -> None:
    assert names_another(reply, "Ada Keller") == another
    assert not names_another(reply, "Ada")


def test_errors_keep_their_class_and_lose_what_they_quote() -> None:
    quoted = "the prompt 'What does Ada Keller\\'s: do?' with /x/Ada Keller.png: 900 tokens, but this context holds 8"
    with pytest.raises(InputError) as raised, nameless():
        raise InputError(quoted)
    assert str(raised.value) == "a question about a person: 900 tokens, but this context holds 8"


def test_those_who_stay_come_the_likest_first(world: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        talker.picture(number).save(tmp_path / f"{number}.png")
    checkpoint = load(world / "base")
    person = Who("person one", (tmp_path / "1.png",))
    same, near, far = Who("person one b", (tmp_path / "1.png",)), Who("person two"), Who("Xyz", (tmp_path / "2.png",))
    assert nearest_first(checkpoint, person, [far, near, same])[0] is same
    assert nearest_first(checkpoint, person, [same, near, far])[0] is same
    assert nearest_first(checkpoint, person, [far, near, same])[-1] is not same
    assert nearest_first(checkpoint, person, []) == []
    assert nearest_first(checkpoint, person, [far]) == [far]
