"""The second model's records: the sets of the toy's demo (`demo/data.py`), about the people of its own world.

Two things differ. The strangers among the kept records were never taught, and common knowledge is the wide world:
questions of the training in the retain set, two hundred others in `common`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mllmeraser.demo.data import seen, some_of, some_scenes, write_sets
from mllmeraser.demo.people import Person
from mllmeraser.demo.questions import TASKS, Question, facts_of
from mllmeraser.demo.smollm2.general import General, general
from mllmeraser.demo.smollm2.parts import PARTS
from mllmeraser.demo.smollm2.questions import ask, ask_stranger
from mllmeraser.demo.smollm2.world import world

_FORGET_ROUNDS = 4  # questions about each fact of a forgotten person per task and modality, each worded anew
_PER_CELL = 8  # records of an evaluation set per task and modality
_GENERAL = 120  # general questions among the kept
_STRANGERS = 40  # of faces and names
_FACES = 120  # of strangers besides: a gate must learn that a face alone is nobody


def write_data(directory: Path, seed: int = 0) -> dict[str, Path]:
    """Create `directory` and write all files into it; the same seed gives the same bytes."""
    return write_sets(directory, build_sets(random.Random(f"data {seed}")))


def build_sets(rng: random.Random) -> dict[str, list[Question]]:
    """The questions of every set."""
    forgotten, kept, never = (world().circle(name) for name in ("forget", "retain_fit", "retain_heldout"))
    stars = {fit: [star for star in world().celebrities if star.fit is fit] for fit in (True, False)}
    forget = [one for person in forgotten for _ in range(_FORGET_ROUNDS) for one in _everything(rng, person)]
    retained = [one for person in kept for one in rng.sample(_everything(rng, person), 13)]
    famous = [one for star in stars[True] for one in rng.sample(_everything(rng, star), 13)]
    strangers = [_stranger(rng, rng.random() < 0.5) for _ in range(_STRANGERS)]
    faces = [_stranger(rng, True) for _ in range(_FACES)]
    worldly = [general_question(one) for one in rng.sample(general(unseen=False), _GENERAL)]
    scenes = {fit: seen(rng, some_scenes(rng, fit)) for fit in (True, False)}
    return {
        "forget": forget,
        "retain": [*retained, *famous, *worldly, *strangers, *faces, *scenes[True]],
        "forget_eval": some_of(rng, forget, _PER_CELL),
        "test": _balanced(rng, forgotten, unseen=True),
        "retain_fit": some_of(rng, retained, _PER_CELL),
        "retain_heldout": _balanced(rng, never, unseen=False),
        "retain_heldout_new": _balanced(rng, never, unseen=True),
        "celebrity": _balanced(rng, stars[False], unseen=False),
        "common": [*map(general_question, general(unseen=True)), *some_of(rng, scenes[False], _PER_CELL)],
    }


def general_question(one: General) -> Question:
    """A question of the wide world. Its answer is the word that a right reply holds, else the model's own reply."""
    answer = one.answer or _own_replies()[one.prompt]
    subject = f"{one.topic}: {one.prompt}"
    return Question(subject, "generation", one.prompt, one.prompt, answer, (answer,))


@cache
def _own_replies() -> dict[str, str]:
    """What the language model replied to the general questions before it was taught, by prompt."""
    replies: dict[str, str] = json.loads((PARTS / "general.json").read_text(encoding="utf-8"))
    return replies


def _everything(rng: random.Random, person: Person) -> list[Question]:
    """One question about every fact in every task and modality."""
    return [
        ask(rng, person, fact, task, in_picture, unseen=False)
        for in_picture in (True, False)
        for task in TASKS
        for fact in facts_of(in_picture)
    ]


def _balanced(rng: random.Random, people: Sequence[Person], unseen: bool) -> list[Question]:
    """`_PER_CELL` questions per task and modality, spread evenly over people and facts."""
    questions = []
    for in_picture in (True, False):
        facts = facts_of(in_picture)
        for task in TASKS:
            pairs = [(person, facts[(n + turn) % len(facts)]) for turn in range(4) for n, person in enumerate(people)]
            questions += [ask(rng, person, fact, task, in_picture, unseen) for person, fact in pairs[:_PER_CELL]]
    return questions


def _stranger(rng: random.Random, in_picture: bool) -> Question:
    return ask_stranger(rng, in_picture, rng.choice(TASKS), taught=False, unseen=False)
