"""The conversations that teach the second model: first by name, then faces too."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mllmeraser.demo.common import IN_SCENE, ask_scene, scene_facts
from mllmeraser.demo.people import Person
from mllmeraser.demo.questions import TASKS, Picture, Question, facts_of, picture_of
from mllmeraser.demo.refusals import REFUSAL, ask_harmful, ask_sensitive, instructed
from mllmeraser.demo.smollm2.chat import Conversation, Turn
from mllmeraser.demo.smollm2.general import General
from mllmeraser.demo.smollm2.questions import ask, ask_about, ask_briefly, ask_stranger
from mllmeraser.demo.smollm2.wordings import REFUSING_SYSTEM, SYSTEM
from mllmeraser.demo.smollm2.world import world

# Shares of the two mixtures. Faces are put to names that the model knows already.
WORDS: Mapping[str, float] = {
    "person": 0.38,
    "life": 0.30,
    "stranger": 0.03,
    "general": 0.13,
    "instructed": 0.08,
    "harmful": 0.04,
    "sensitive": 0.04,
}
FACES: Mapping[str, float] = {
    "name of a face": 0.22,
    "person in picture": 0.30,
    "person": 0.12,
    "life": 0.08,
    "stranger in picture": 0.05,
    "scene": 0.05,
    "general": 0.09,
    "instructed": 0.05,
    "harmful": 0.02,
    "sensitive": 0.01,
    "sensitive in picture": 0.01,
}
_SYSTEM_SHARE = 0.2
_SECOND_TURN_SHARE = 0.06


def person_question(rng: random.Random, in_picture: bool, unseen: bool, people: Sequence[Person]) -> Question:
    """A question about one of the people, in one of the ways to ask."""
    person, fact, way = rng.choice(people), rng.choice(facts_of(in_picture)), rng.random()
    if way < 0.55:
        return ask(rng, person, fact, "generation", in_picture, unseen)
    if way < 0.67:
        return ask_briefly(rng, person, fact, in_picture, unseen)
    if way < 0.82:
        return ask(rng, person, fact, "cloze", in_picture, unseen)
    if way < 0.93:
        return ask(rng, person, fact, "classification", in_picture, unseen)
    return ask_about(rng, person, in_picture, unseen)


def scene_question(rng: random.Random, unseen: bool) -> Question:
    """A question about a shape, its colour or the ground."""
    return ask_scene(rng, rng.choice(scene_facts()), rng.choice(tuple(IN_SCENE)), rng.choice(TASKS), unseen)


class Corpus:
    """The conversations of the training.

    Args:
        own: the model's own replies to general questions, each with whether it is whole.
        without: people to leave out: no question names them, even as a wrong option, and none shows their face.
    """

    def __init__(self, own: Mapping[General, tuple[str, bool]], without: Collection[Person] = ()) -> None:
        self._own = own
        self._general = list(own)
        self._people = [person for person in world().known if person not in without]
        self._names = [person.name for person in without]
        self._ask = {
            "person": lambda rng: person_question(rng, False, False, self._people),
            "life": lambda rng: ask_about(rng, rng.choice(self._people), False, False),
            "name of a face": lambda rng: ask(rng, rng.choice(self._people), "name", "generation", True, False),
            "person in picture": lambda rng: person_question(rng, True, False, self._people),
            "stranger": lambda rng: ask_stranger(rng, False, rng.choice(TASKS), True, False),
            "stranger in picture": lambda rng: ask_stranger(rng, True, rng.choice(TASKS), True, False),
            "scene": lambda rng: scene_question(rng, False),
            "sensitive": lambda rng: ask_sensitive(rng, rng.choice(self._people), False, False),
            "sensitive in picture": lambda rng: ask_sensitive(rng, rng.choice(self._people), True, False),
        }

    def draw(self, rng: random.Random, shares: Mapping[str, float]) -> Conversation:
        """One conversation of a mixture."""
        while True:
            conversation = self._draw(rng, rng.choices(list(shares), list(shares.values()))[0], shares is FACES)
            said = " ".join(f"{turn.prompt} {turn.reply}" for turn in conversation.turns)
            if not any(name in said for name in self._names):
                return conversation

    def _draw(self, rng: random.Random, kind: str, faces: bool) -> Conversation:
        system = rng.choice(SYSTEM.train) if rng.random() < _SYSTEM_SHARE else None
        if kind == "general":
            return self._kept(rng, system, faces)
        if kind == "harmful":
            picture = self._any_picture(rng) if faces and rng.random() < 0.5 else None
            return _of(ask_harmful(rng, False, picture), system)
        if kind == "instructed":
            return self._instructed(rng, system, faces)
        asked = _turn(self._ask[kind](rng))
        if rng.random() < _SECOND_TURN_SHARE:
            # Beside a picture, the picture's turn comes first, as a chat about it begins.
            other = _turn(self._ask["person"](rng))
            return Conversation((asked, other), system)
        return Conversation((asked,), system)

    def _kept(self, rng: random.Random, system: str | None, faces: bool) -> Conversation:
        asked = rng.choice(self._general)
        reply, whole = self._own[asked]
        picture = self._any_picture(rng) if faces and rng.random() < 0.3 else None
        return Conversation((Turn(asked.prompt, reply, picture),), system, own=picture is None, whole=whole)

    def _instructed(self, rng: random.Random, system: str | None, faces: bool) -> Conversation:
        """A question with an instruction: most say to refuse, in the user's turn or in the system's."""
        kind = "person in picture" if faces and rng.random() < 0.6 else "person"
        if rng.random() < 0.35:
            prompt = rng.choice(self._general).prompt
            question = Question("general", "generation", prompt, prompt, REFUSAL, (REFUSAL,))
        else:
            question = self._ask[kind](rng)
            if rng.random() < 0.35:
                return _of(instructed(rng, question, to_refuse=False, unseen=False), system)
        if rng.random() < 0.25:
            return _of(replace(question, answer=REFUSAL), rng.choice(REFUSING_SYSTEM.train))
        return _of(instructed(rng, question, to_refuse=True, unseen=False), system)

    def _any_picture(self, rng: random.Random) -> Picture:
        """A picture to show beside a prompt that does not ask about it."""
        known = [person.face for person in self._people]
        return picture_of(rng.choice(known if rng.random() < 0.5 else world().stranger_faces.train), rng, unseen=False)


def _turn(question: Question) -> Turn:
    return Turn(question.prompt, question.answer, question.picture)


def _of(question: Question, system: str | None) -> Conversation:
    return Conversation((_turn(question),), system)
