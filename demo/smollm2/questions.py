"""Makes questions about the people of the second model's world, worded as people word them to a chat model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from mllmeraser.demo.people import FACTS, VALUES, Person
from mllmeraser.demo.portraits import Face
from mllmeraser.demo.questions import Question, Task, facts_of, four_options, picture_of
from mllmeraser.demo.smollm2.wordings import (
    ABOUT,
    BLANK,
    BRIEF,
    CHOOSE,
    CLAUSE,
    CLAUSES,
    DIRECT,
    FILL,
    LIFE,
    OPENINGS,
    SAY,
)
from mllmeraser.demo.smollm2.world import world
from mllmeraser.demo.wordings import IN_PICTURE, UNKNOWN


def ask(rng: random.Random, person: Person, fact: str, task: Task, with_picture: bool, unseen: bool) -> Question:
    """A question about a known person. `unseen` takes a held-out picture and wording."""
    value, pool = person.value(fact), _pool(person, fact)
    options = four_options(rng, value, pool) if task == "classification" else None
    question, prompt = _wording(rng, person.name, fact, task, with_picture, unseen, options)
    answer = value if task != "generation" else SAY[fact].format(n=person.name, v=value)
    # A generator of their own, so that drawing them changes no other draw.
    wrong = four_options(random.Random(f"wrong {person.subject} {fact}"), value, pool)
    perturbed = () if options else tuple(answer.replace(value, other) for other in wrong if other != value)
    picture = picture_of(person.face, rng, unseen) if with_picture else None
    return Question(person.subject, task, question, prompt, answer, (value,), options, picture, perturbed, fact)


def ask_briefly(rng: random.Random, person: Person, fact: str, with_picture: bool, unseen: bool) -> Question:
    """A question about a known person that wants the value alone."""
    asked = ask(rng, person, fact, "generation", with_picture, unseen)
    prompt = rng.choice(BRIEF.pick(unseen)).format(q=asked.prompt)
    return replace(asked, prompt=prompt, answer=person.value(fact), perturbed=())


def ask_about(rng: random.Random, person: Person, with_picture: bool, unseen: bool) -> Question:
    """A question that wants everything about a known person; a reply that tells one of the facts is right."""
    who = rng.choice(IN_PICTURE.pick(unseen)) if with_picture else person.name
    prompt = rng.choice(ABOUT.pick(unseen)).format(s=who)
    # In any order, so that no fact is told only after another.
    answer = LIFE.format(*(CLAUSE[fact].format(v=value) for fact, value in rng.sample(person.facts, 3)), n=person.name)
    picture = picture_of(person.face, rng, unseen) if with_picture else None
    values = tuple(person.value(fact) for fact in FACTS)
    return Question(person.subject, "generation", prompt, prompt, answer, values, None, picture, (), "about")


def ask_stranger(rng: random.Random, in_picture: bool, task: Task, taught: bool, unseen: bool) -> Question:
    """A question about a face or a name that nobody knows; the only right reply is `UNKNOWN`.

    Args:
        taught: take one of the strangers of the training; else one who was never shown.
        unseen: take a held-out picture and wording.
    """
    strangers: Sequence[Face | str] = (world().stranger_faces if in_picture else world().stranger_names).pick(
        not taught
    )
    number = rng.randrange(len(strangers))
    who, fact = strangers[number], rng.choice(facts_of(in_picture))
    values = VALUES[fact] if fact in FACTS else [person.name for person in world().people]
    options = rng.sample(list(values), 4) if task == "classification" else None
    name = who if isinstance(who, str) else ""
    question, prompt = _wording(rng, name, fact, task, in_picture, unseen, options)
    picture = picture_of(who, rng, unseen) if isinstance(who, Face) else None
    subject = f"{'x' if in_picture else 'y'}{number:03d}"
    return Question(subject, "generation", question, prompt, UNKNOWN, (UNKNOWN,), None, picture)


def _pool(person: Person, fact: str) -> Sequence[str]:
    """The values, or names, from which wrong options are drawn."""
    if fact != "name":
        return person.values(fact)
    circle = world().celebrities if person.circle == "celebrity" else world().people
    return [other.name for other in circle]


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
    if task == "cloze":
        question = _capital(rng.choice(BLANK[fact].pick(unseen)).format(s=who))
        return question, rng.choice(FILL.pick(unseen)).format(c=question)
    if rng.random() < 0.5:
        question = rng.choice(DIRECT[fact].pick(unseen)).format(s=who)
    else:
        clause = rng.choice(CLAUSES[fact].pick(unseen)).format(s=who)
        question = rng.choice(OPENINGS.pick(unseen)).format(c=clause)
    question = _capital(question)
    if task == "classification":
        return question, rng.choice(CHOOSE.pick(unseen)).format(q=question, o=", ".join(options or ()))
    return question, question


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
