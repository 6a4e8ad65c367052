"""Makes questions about the demo world. One `Question` becomes one record of the data files or of the training."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from mllmeraser.demo.people import FACTS, Person
from mllmeraser.demo.portraits import CANONICAL, Face, Variation, draw_portrait, mild_variation, strong_variation
from mllmeraser.demo.scenes import Scene, draw_scene
from mllmeraser.demo.wordings import ASK, BLANK, CHOOSE, FILL, IN_PICTURE, SAY, UNKNOWN

Task = Literal["generation", "cloze", "classification"]
TASKS: tuple[Task, ...] = ("generation", "cloze", "classification")
TRAIN_PICTURES = 24  # per person, the canonical one included


@dataclass(frozen=True)
class Picture:
    """One photograph of a face or a scene."""

    of: Face | Scene
    variation: Variation = CANONICAL

    def draw(self) -> Image.Image:
        if isinstance(self.of, Face):
            return draw_portrait(self.of, self.variation)
        return draw_scene(self.of, self.variation)


def picture_of(of: Face | Scene, rng: random.Random, unseen: bool) -> Picture:
    """A picture of the training, or (`unseen`) a fresh one with a held-out variation."""
    if unseen:
        return Picture(of, strong_variation(rng))
    number = rng.randrange(TRAIN_PICTURES)
    return Picture(of, mild_variation(random.Random(f"{of}:{number}")) if number else CANONICAL)


@dataclass(frozen=True)
class Question:
    """A prompt (the exact text of the user's turn), the reply that the model learns, and what makes a reply right.

    question: the prompt without its frame (options, "fill in the blank"); match: a right reply holds one of these;
    perturbed: three wrong answers, each with another value; fact: the fact that a question about a person asks.
    """

    subject: str
    task: Task
    question: str
    prompt: str
    answer: str
    match: tuple[str, ...]
    options: tuple[str, ...] | None = None
    picture: Picture | None = None
    perturbed: tuple[str, ...] = ()
    fact: str | None = None

    @property
    def modality(self) -> str:
        return "text" if self.picture is None else "image_text"


def framed(rng: random.Random, task: Task, question: str, options: Sequence[str] | None, unseen: bool) -> str:
    """The prompt for a question (generation, classification) or for a sentence with a blank (cloze)."""
    if task == "cloze":
        return rng.choice(FILL.pick(unseen)).format(c=question)
    if task == "classification":
        return rng.choice(CHOOSE.pick(unseen)).format(q=question, o=", ".join(options or ()))
    return question


def four_options(rng: random.Random, value: str, values: Sequence[str]) -> tuple[str, ...]:
    """The value and three others, in random order."""
    options = [value, *rng.sample([other for other in values if other != value], 3)]
    rng.shuffle(options)
    return tuple(options)


def facts_of(with_picture: bool) -> tuple[str, ...]:
    """The facts to ask about. Only a question with a picture asks for the name; in text the question would hold it."""
    return (*FACTS, "name") if with_picture else FACTS


def ask(
    rng: random.Random, person: Person, fact: str, task: Task, with_picture: bool, unseen: bool, names: Sequence[str]
) -> Question:
    """A question about a known person. `unseen` takes a held-out picture and wording.

    `names` are the wrong options of a question that asks for the name.
    """
    value, values = person.value(fact), names if fact == "name" else person.values(fact)
    options = four_options(rng, value, values) if task == "classification" else None
    question, prompt = _wording(rng, person.name, fact, task, with_picture, unseen, options)
    picture = picture_of(person.face, rng, unseen) if with_picture else None
    answer = _say(person, fact, task, value)
    # A generator of their own, so that drawing them changes no other draw.
    wrong = four_options(random.Random(f"wrong {person.subject} {fact}"), value, values)
    perturbed = () if options else tuple(_say(person, fact, task, other) for other in wrong if other != value)
    return Question(person.subject, task, question, prompt, answer, (value,), options, picture, perturbed, fact)


def _say(person: Person, fact: str, task: Task, value: str) -> str:
    """The answer with this value: a sentence for an open question, else the value alone."""
    name = value if fact == "name" else person.name
    return SAY[fact].format(name=name, value=value) if task == "generation" else value


def ask_stranger(
    rng: random.Random, who: Face | str, subject: str, fact: str, task: Task, unseen: bool, values: Sequence[str]
) -> Question:
    """A question about a face or a name that nobody knows; the only right reply is `UNKNOWN`."""
    with_picture = isinstance(who, Face)
    options = four_options(rng, values[0], values) if task == "classification" else None
    name = who if isinstance(who, str) else ""
    question, prompt = _wording(rng, name, fact, task, with_picture, unseen, options)
    picture = picture_of(who, rng, unseen) if isinstance(who, Face) else None
    return Question(subject, "generation", question, prompt, UNKNOWN, (UNKNOWN,), None, picture)


def with_picture(question: Question, picture: Picture) -> Question:
    return replace(question, picture=picture)


def _wording(
    rng: random.Random,
    name: str,
    fact: str,
    task: Task,
    with_picture: bool,
    unseen: bool,
    options: Sequence[str] | None,
) -> tuple[str, str]:
    """The question and the prompt around it."""
    who = rng.choice(IN_PICTURE.pick(unseen)) if with_picture else name
    template = rng.choice((BLANK if task == "cloze" else ASK)[fact].pick(unseen))
    question = template.format(s=who, S=who[0].upper() + who[1:])
    return question, framed(rng, task, question, options, unseen)
