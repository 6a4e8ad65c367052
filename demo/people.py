"""The people of the demo world: a hundred people, twenty celebrities, and faces and names that nobody knows.

Every installation has the same world (`world()` takes no seed), because the committed checkpoint knows these people. A
seed decides only which pictures and wordings are drawn from it.

Several people share every value (a profession, a city, a hobby), so an answer identifies nobody. First and last names
are unique, and any two known faces differ in at least six of thirteen features.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Generic, NamedTuple, TypeVar

from mllmeraser.demo.portraits import Face, differences, random_face

T = TypeVar("T")

FORGET, RETAIN_FIT, RETAIN_HELDOUT = 8, 52, 40
CELEBRITIES = 20  # the first half is for the fit, the second is only evaluated
TRAIN_STRANGERS, HELD_OUT_STRANGERS = 1_200, 120  # faces, and as many names

FACTS = ("profession", "city", "hobby")
VALUES: dict[str, tuple[str, ...]] = {
    "profession": (
        "baker",
        "barber",
        "chemist",
        "dentist",
        "farmer",
        "judge",
        "mechanic",
        "nurse",
        "pilot",
        "plumber",
        "tailor",
        "teacher",
    ),
    "city": (
        "Basel",
        "Bergen",
        "Bristol",
        "Ghent",
        "Graz",
        "Leipzig",
        "Lyon",
        "Malmo",
        "Porto",
        "Seville",
        "Turin",
        "Utrecht",
    ),
    "hobby": (
        "archery",
        "chess",
        "cycling",
        "fencing",
        "fishing",
        "gardening",
        "juggling",
        "knitting",
        "painting",
        "sailing",
        "skating",
        "yoga",
    ),
}
CELEBRITY_VALUES: dict[str, tuple[str, ...]] = {
    "profession": ("boxer", "comedian", "composer", "dancer", "novelist", "singer"),
    "city": ("Boston", "Chicago", "Dallas", "Miami", "Montreal", "Sydney"),
    "hobby": ("bowling", "cooking", "diving", "golf", "poker", "surfing"),
}

_FIRST = [
    "Al",
    "Bren",
    "Cor",
    "Dal",
    "El",
    "Fen",
    "Gar",
    "Hel",
    "Il",
    "Jor",
    "Kel",
    "Lor",
    "Mar",
    "Nor",
    "Or",
    "Per",
    "Quin",
    "Ral",
    "Sel",
    "Tor",
    "Ul",
    "Vel",
    "Wil",
    "Yor",
    "Zel",
]
_FIRST_END = ["an", "en", "ia", "in", "is", "o", "on", "or", "us"]
_LAST = [
    "Amber",
    "Birch",
    "Cold",
    "Dun",
    "Elm",
    "Fox",
    "Glen",
    "Hazel",
    "Iron",
    "Jay",
    "Kings",
    "Lang",
    "Moor",
    "North",
    "Oak",
    "Pine",
    "Quill",
    "Rowan",
    "Stone",
    "Thorn",
]
_LAST_END = ["bury", "combe", "dale", "field", "gate", "ham", "ley", "mere", "ton", "well", "wick"]


@dataclass(frozen=True)
class Person:
    """Somebody the model knows. `circle` is forget, retain_fit, retain_heldout or celebrity.

    `fit` says whether steering may be fitted on the person.
    """

    subject: str
    circle: str
    fit: bool
    name: str
    face: Face
    facts: tuple[tuple[str, str], ...]  # (fact, value)

    def value(self, fact: str) -> str:
        """The value of a fact, or the full name for the fact "name"."""
        return self.name if fact == "name" else dict(self.facts)[fact]

    def values(self, fact: str) -> tuple[str, ...]:
        """All values of the fact in this person's circle, from which wrong options are drawn."""
        return (CELEBRITY_VALUES if self.circle == "celebrity" else VALUES)[fact]


class Strangers(NamedTuple, Generic[T]):
    """Faces or names that nobody knows: those of the training, and those held out."""

    train: tuple[T, ...]
    held_out: tuple[T, ...]

    def pick(self, unseen: bool) -> tuple[T, ...]:
        return self.held_out if unseen else self.train


@dataclass(frozen=True)
class World:
    people: tuple[Person, ...]
    celebrities: tuple[Person, ...]
    stranger_faces: Strangers[Face]
    stranger_names: Strangers[str]

    @property
    def known(self) -> tuple[Person, ...]:
        return self.people + self.celebrities

    def circle(self, name: str) -> tuple[Person, ...]:
        return tuple(person for person in self.known if person.circle == name)


@cache
def world() -> World:
    """The demo world; there is only one."""
    rng = random.Random("mllmeraser demo world")
    count = FORGET + RETAIN_FIT + RETAIN_HELDOUT
    faces = distinct_faces(rng, count + CELEBRITIES)
    names, strange_names = _names(rng, count + CELEBRITIES)
    circles = ["forget"] * FORGET + ["retain_fit"] * RETAIN_FIT + ["retain_heldout"] * RETAIN_HELDOUT
    shared = {fact: spread(rng, VALUES[fact], count) for fact in FACTS}
    famous = {fact: spread(rng, CELEBRITY_VALUES[fact], CELEBRITIES) for fact in FACTS}
    people = tuple(
        Person(
            f"p{i:03d}",
            circles[i],
            circles[i] != "retain_heldout",
            names[i],
            faces[i],
            tuple((fact, shared[fact][i]) for fact in FACTS),
        )
        for i in range(count)
    )
    celebrities = tuple(
        Person(
            f"c{i:03d}",
            "celebrity",
            i < CELEBRITIES // 2,
            names[count + i],
            faces[count + i],
            tuple((fact, famous[fact][i]) for fact in FACTS),
        )
        for i in range(CELEBRITIES)
    )
    unknown = tuple(strange_faces(rng, TRAIN_STRANGERS + HELD_OUT_STRANGERS, faces))
    return World(
        people,
        celebrities,
        Strangers(unknown[:TRAIN_STRANGERS], unknown[TRAIN_STRANGERS:]),
        strange_names,
    )


def spread(rng: random.Random, values: tuple[str, ...], count: int) -> list[str]:
    """`count` values in random order, each about equally often."""
    drawn = [values[i % len(values)] for i in range(count)]
    rng.shuffle(drawn)
    return drawn


def distinct_faces(rng: random.Random, count: int) -> list[Face]:
    """Random faces; any two of them differ in at least six features."""
    faces: list[Face] = []
    while len(faces) < count:
        face = random_face(rng)
        if all(differences(face, other) >= 6 for other in faces):
            faces.append(face)
    return faces


def strange_faces(rng: random.Random, count: int, known: list[Face]) -> list[Face]:
    """Random faces that differ from every known face in at least five features."""
    faces: list[Face] = []
    while len(faces) < count:
        face = random_face(rng)
        if all(differences(face, other) >= 5 for other in known):
            faces.append(face)
    return faces


def _names(rng: random.Random, count: int) -> tuple[list[str], Strangers[str]]:
    """The names of known people and of strangers, made of first and last names.

    No two known people share a first or a last name. Strangers have other ones, and held-out strangers share none with
    strangers of the training.
    """
    first = [start + end for start in _FIRST for end in _FIRST_END]
    last = [start + end for start in _LAST for end in _LAST_END]
    rng.shuffle(first)
    rng.shuffle(last)
    known = [f"{a} {b}" for a, b in zip(first[:count], last[:count], strict=True)]
    first, last = first[count:], last[count:]
    train = [f"{a} {b}" for a in first[30:] for b in last[30:]]
    held_out = [f"{a} {b}" for a in first[:30] for b in last[:30]]
    return known, Strangers(tuple(rng.sample(train, TRAIN_STRANGERS)), tuple(rng.sample(held_out, HELD_OUT_STRANGERS)))
