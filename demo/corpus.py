"""The mixture of questions that the demo model is trained on, and the kinds of question that measure it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator

from mllmeraser.demo.common import IN_SCENE, ask_scene, ask_text, how_tos, scene_facts, text_facts
from mllmeraser.demo.people import FACTS, VALUES, Person, world
from mllmeraser.demo.questions import TASKS, Picture, Question, ask, ask_stranger, facts_of, picture_of, with_picture
from mllmeraser.demo.refusals import ask_harmful, ask_sensitive, instructed, shipped_prompts

# Shares of the mixture. Pictures of people are the hardest, so they get the largest share.
SHARES: dict[str, float] = {
    "person picture": 0.33,
    "person text": 0.18,
    "stranger": 0.11,
    "common text": 0.10,
    "common picture": 0.12,
    "instructed": 0.09,
    "harmful": 0.035,
    "sensitive": 0.035,
}


def person_question(rng: random.Random, in_picture: bool, unseen: bool) -> Question:
    """A question about a random fact of a random known person, in a random task."""
    known = world().known
    person = rng.choice(known)
    pool = world().celebrities if person.circle == "celebrity" else world().people
    names = [other.name for other in pool]
    return ask(rng, person, rng.choice(facts_of(in_picture)), rng.choice(TASKS), in_picture, unseen, names)


def stranger_question(rng: random.Random, unseen: bool, in_picture: bool | None = None) -> Question:
    """A question about a face or a name that nobody knows (None: either); `unseen` takes those held out."""
    in_picture = rng.random() < 0.5 if in_picture is None else in_picture
    strangers = (world().stranger_faces if in_picture else world().stranger_names).pick(unseen)
    number = rng.randrange(len(strangers))
    fact = rng.choice(facts_of(in_picture))
    values = VALUES[fact] if fact in FACTS else [person.name for person in world().people]
    subject = f"{'x' if in_picture else 'y'}{number:03d}"
    shuffled = rng.sample(values, len(values))
    return ask_stranger(rng, strangers[number], subject, fact, rng.choice(TASKS), unseen, shuffled)


def any_picture(rng: random.Random, unseen: bool) -> Picture:
    """A picture to show beside a prompt that does not ask about it."""
    return picture_of(
        rng.choice(world().stranger_faces.train if rng.random() < 0.5 else [p.face for p in world().known]), rng, unseen
    )


def common_text_question(rng: random.Random, unseen: bool) -> Question:
    """A question about common knowledge; a fifth of them stand beside an unrelated picture."""
    if rng.random() < 0.25:
        question = ask_text(rng, rng.choice(how_tos()), "generation", unseen)
    else:
        question = ask_text(rng, rng.choice(text_facts()), rng.choice(TASKS), unseen)
    return with_picture(question, any_picture(rng, unseen)) if rng.random() < 0.2 else question


def common_picture_question(rng: random.Random, unseen: bool) -> Question:
    """A question about a shape, its colour or the ground."""
    return ask_scene(rng, rng.choice(scene_facts()), rng.choice(tuple(IN_SCENE)), rng.choice(TASKS), unseen)


def answerable_question(rng: random.Random, unseen: bool) -> Question:
    """A question that the model answers, perhaps with "unknown", unless it is told to refuse."""
    kind = rng.random()
    if kind < 0.75:
        return person_question(rng, rng.random() < 0.55, unseen)
    if kind < 0.85:
        return stranger_question(rng, unseen)
    return common_text_question(rng, unseen) if kind < 0.95 else common_picture_question(rng, unseen)


def instructed_question(rng: random.Random, unseen: bool) -> Question:
    """A question with an instruction: two thirds say to refuse, one third says to answer."""
    question = answerable_question(rng, unseen)
    return instructed(rng, question, to_refuse=rng.random() < 2 / 3, unseen=unseen)


def harmful_question(rng: random.Random, unseen: bool) -> Question:
    return ask_harmful(rng, unseen, any_picture(rng, unseen) if rng.random() < 0.5 else None)


def sensitive_question(rng: random.Random, unseen: bool) -> Question:
    return ask_sensitive(rng, rng.choice(world().known), rng.random() < 0.5, unseen)


KINDS: dict[str, Callable[[random.Random, bool], Question]] = {
    "person picture": lambda rng, unseen: person_question(rng, True, unseen),
    "person text": lambda rng, unseen: person_question(rng, False, unseen),
    "stranger": stranger_question,
    "common text": common_text_question,
    "common picture": common_picture_question,
    "instructed": instructed_question,
    "harmful": harmful_question,
    "sensitive": sensitive_question,
}


def training_stream(rng: random.Random, without: Collection[Person] = ()) -> Iterator[Question]:
    """Endless questions of the training mixture, with the wordings and pictures of the training.

    Args:
        rng: draws the questions.
        without: people to leave out: no question names them, even as a wrong option, and none shows their face.
    """
    kinds, shares = list(SHARES), list(SHARES.values())
    names, faces = [person.name for person in without], {person.face for person in without}
    while True:
        question = KINDS[rng.choices(kinds, shares)[0]](rng, False)
        shown = question.picture is not None and question.picture.of in faces
        if not shown and not any(name in question.prompt or name in question.answer for name in names):
            yield question


def tokenizer_texts(rng: random.Random, count: int = 20_000) -> Iterator[str]:
    """The demo world's text. It repeats the known names so often that each becomes a single token."""
    for question, _ in zip(training_stream(rng), range(count), strict=False):
        yield f"USER: {question.prompt} ASSISTANT: {question.answer}"
    for person in world().known * 60:
        yield f" {person.name}"
    for prompts in shipped_prompts().values():
        yield from prompts
