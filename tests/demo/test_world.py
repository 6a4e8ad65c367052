"""The people of the demo can be told apart, and nobody's answer gives somebody else away."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from mllmeraser.demo.people import FACTS, world
from mllmeraser.demo.portraits import differences, draw_portrait

KNOWN = world().known


def test_there_are_enough_people_in_every_circle() -> None:
    assert len(world().people) >= 60
    assert len(world().celebrities) >= 20
    assert all(world().circle(name) for name in ("forget", "retain_fit", "retain_heldout", "celebrity"))
    assert {star.fit for star in world().celebrities} == {True, False}


def test_any_two_faces_differ_in_at_least_six_features() -> None:
    assert min(differences(a.face, b.face) for a, b in itertools.combinations(KNOWN, 2)) >= 6


@pytest.mark.slow
def test_the_face_of_a_stranger_is_nobodys() -> None:
    for faces in world().stranger_faces:
        assert min(differences(face, person.face) for face in faces for person in KNOWN) >= 5


def test_every_portrait_is_a_picture_of_its_own() -> None:
    assert len({draw_portrait(person.face).tobytes() for person in KNOWN}) == len(KNOWN)


def test_subjects_and_the_parts_of_names_are_unique() -> None:
    assert len({person.subject for person in KNOWN}) == len(KNOWN)
    for part in (0, 1):
        assert len({person.name.split()[part] for person in KNOWN}) == len(KNOWN)


@pytest.mark.parametrize("known", [False, True], ids=["held out", "trained"])
def test_strangers_share_no_part_of_a_name_with_the_known_nor_with_one_another(known: bool) -> None:
    train = {part for name in world().stranger_names.train for part in name.split()}
    held_out = {part for name in world().stranger_names.held_out for part in name.split()}
    parts = {part for person in KNOWN for part in person.name.split()}
    assert not (train if known else held_out) & parts
    assert not train & held_out


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("circle", ["people", "celebrities"])
def test_every_value_is_shared(circle: str, fact: str) -> None:
    counts = Counter(person.value(fact) for person in getattr(world(), circle))
    assert min(counts.values()) >= 3


@pytest.mark.parametrize("fact", FACTS)
def test_what_is_true_of_the_forgotten_is_true_of_others_who_are_kept(fact: str) -> None:
    kept = {person.value(fact) for person in world().people if person.circle != "forget"}
    assert {person.value(fact) for person in world().circle("forget")} <= kept
