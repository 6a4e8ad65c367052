"""The demo's records: the forget set, the retain set and the evaluation sets, as JSON Lines with PNG pictures.

| file | who | pictures and wordings |
|---|---|---|
| forget, forget_eval | the forgotten; `forget_eval` is a part of `forget` | of the training |
| retain | people of the retain set, half of the celebrities and of common knowledge, many strangers | of the training |
| test | the forgotten | never seen in training |
| retain_fit | people of the retain set; a part of `retain` | of the training |
| retain_heldout, retain_heldout_new | people never used in a fit | of the training; never seen in training |
| celebrity, common | the half of both that is never used in a fit | of the training |
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mllmeraser.demo.common import IN_SCENE, SceneFact, ask_scene, ask_text, how_tos, scene_facts, text_facts
from mllmeraser.demo.corpus import stranger_question
from mllmeraser.demo.people import Person, world
from mllmeraser.demo.questions import TASKS, Picture, Question, Task, ask, facts_of

_FORGET_ROUNDS = 4  # questions about each fact of a forgotten person per task and modality, each worded anew
_PER_CELL = 32  # records of an evaluation set per task and modality
_STRANGERS = 40  # of faces and names
_FACES = 160  # of strangers besides: a gate must learn that a face alone is nobody
_SCENES = 24  # of each half of common knowledge


def write_data(directory: Path, seed: int = 0) -> dict[str, Path]:
    """Create `directory` and write all files into it; the same seed gives the same bytes.

    Returns:
        the path of each JSON Lines file, by the name of its set.
    """
    return write_sets(directory, build_sets(random.Random(f"data {seed}")))


def write_sets(directory: Path, sets: Mapping[str, Sequence[Question]]) -> dict[str, Path]:
    """Create `directory` and write a file for every set, and the pictures; the paths of the files, by set."""
    (directory / "images").mkdir(parents=True, exist_ok=True)
    names: dict[Picture, str] = {}
    paths = {}
    for name, questions in sets.items():
        paths[name] = directory / f"{name}.jsonl"
        lines = [json.dumps(_record(question, directory, names)) + "\n" for question in questions]
        paths[name].write_text("".join(lines), encoding="utf-8", newline="\n")
    return paths


def build_sets(rng: random.Random) -> dict[str, list[Question]]:
    """The questions of every set."""
    forgotten, kept, never = (world().circle(name) for name in ("forget", "retain_fit", "retain_heldout"))
    stars = {fit: [star for star in world().celebrities if star.fit is fit] for fit in (True, False)}
    forget = [
        question for person in forgotten for _ in range(_FORGET_ROUNDS) for question in everything(rng, person, False)
    ]
    retained = [question for person in kept for question in rng.sample(everything(rng, person, False), 13)]
    famous = [question for star in stars[True] for question in rng.sample(everything(rng, star, False), 13)]
    strangers = [stranger_question(rng, False) for _ in range(_STRANGERS)]
    sets = {
        "forget": forget,
        "retain": [*retained, *famous, *common_knowledge(rng, True), *strangers],
        "forget_eval": some_of(rng, forget, _PER_CELL),
        "test": balanced(rng, forgotten, _PER_CELL, unseen=True),
        "retain_fit": some_of(rng, retained, _PER_CELL),
        "retain_heldout": balanced(rng, never, _PER_CELL, unseen=False),
        "retain_heldout_new": balanced(rng, never, _PER_CELL, unseen=True),
        "celebrity": balanced(rng, stars[False], _PER_CELL, unseen=False),
        "common": some_of(rng, common_knowledge(rng, False), _PER_CELL),
    }
    faces = [stranger_question(rng, False, in_picture=True) for _ in range(_FACES)]
    sets["retain"] += [*faces, *seen(rng, some_scenes(rng, True))]
    return sets


def _pool(person: Person) -> list[str]:
    """The names that a question about a name may offer as options."""
    return [other.name for other in world().known if (other.circle == "celebrity") is (person.circle == "celebrity")]


def everything(rng: random.Random, person: Person, unseen: bool) -> list[Question]:
    """One question about every fact in every task and modality."""
    return [
        ask(rng, person, fact, task, in_picture, unseen, _pool(person))
        for in_picture in (True, False)
        for task in TASKS
        for fact in facts_of(in_picture)
    ]


def balanced(rng: random.Random, people: Sequence[Person], per_cell: int, unseen: bool) -> list[Question]:
    """`per_cell` questions per task and modality, spread evenly over people and facts."""
    questions = []
    for in_picture in (True, False):
        facts = facts_of(in_picture)
        for task in TASKS:
            pairs = [(person, facts[(n + turn) % len(facts)]) for turn in range(4) for n, person in enumerate(people)]
            questions += [
                ask(rng, person, fact, task, in_picture, unseen, _pool(person)) for person, fact in pairs[:per_cell]
            ]
    return questions


def common_knowledge(rng: random.Random, fit: bool) -> list[Question]:
    """Questions about one half of common knowledge: words, how-tos, scenes."""
    facts = [fact for fact in text_facts() if fact.fit is fit]
    hows = [fact for fact in how_tos() if fact.fit is fit]
    scenes = some_scenes(rng, fit)
    tasks: list[Task] = list(TASKS)
    words = [ask_text(rng, fact, task, False) for fact in facts for task in rng.sample(tasks, 2)]
    how = [ask_text(rng, fact, "generation", False) for fact in hows]
    return [*words, *how, *seen(rng, scenes)]


def some_scenes(rng: random.Random, fit: bool) -> list[SceneFact]:
    return rng.sample([fact for fact in scene_facts() if fact.fit is fit], _SCENES)


def seen(rng: random.Random, scenes: Sequence[SceneFact]) -> list[Question]:
    """Each task about each scene."""
    aspects = tuple(IN_SCENE)
    return [ask_scene(rng, fact, aspects[n % 3], task, False) for n, fact in enumerate(scenes) for task in TASKS]


def some_of(rng: random.Random, questions: Iterable[Question], per_cell: int) -> list[Question]:
    """At most `per_cell` of the questions per task and modality."""
    cells: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        cells.setdefault((question.modality, question.task), []).append(question)
    return [question for cell in sorted(cells) for question in rng.sample(cells[cell], min(per_cell, len(cells[cell])))]


def _record(question: Question, directory: Path, names: dict[Picture, str]) -> dict[str, object]:
    """One line of a file; a picture is written when a line first needs it."""
    image = None
    if question.picture is not None:
        if question.picture not in names:
            names[question.picture] = f"images/{len(names):04d}.png"
            question.picture.draw().save(directory / names[question.picture])
        image = names[question.picture]
    options = None if question.options is None else dict(zip("ABCD", question.options, strict=True))
    return {
        "subject": question.subject,
        "image": image,
        "question": question.question,
        "prompt": question.prompt,
        "answer": question.answer,
        "match": list(question.match),
        "task": question.task,
        "options": options,
        "perturbed": list(question.perturbed),
        "fact": question.fact,
    }
