"""Common knowledge: facts that the demo model knows and that are not about people, in text and in simple pictures.

Each fact is its own subject. Steering is fitted on one half of them; the other half is only evaluated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import product

from mllmeraser.demo.questions import Picture, Question, Task, four_options, framed, picture_of
from mllmeraser.demo.scenes import COLOURS, GROUNDS, SHAPES, Scene
from mllmeraser.demo.wordings import Wordings


@dataclass(frozen=True)
class Topic:
    """A kind of fact. In its wordings `{k}` is what is asked about and `{v}` is the answer."""

    facts: dict[str, str]
    ask: Wordings
    blank: Wordings
    say: str


TOPICS: dict[str, Topic] = {
    "capital": Topic(
        dict(
            pair.split("/")
            for pair in [
                "France/Paris",
                "Italy/Rome",
                "Spain/Madrid",
                "Germany/Berlin",
                "Austria/Vienna",
                "Poland/Warsaw",
                "Portugal/Lisbon",
                "Greece/Athens",
                "Norway/Oslo",
                "Sweden/Stockholm",
                "Finland/Helsinki",
                "Ireland/Dublin",
                "Hungary/Budapest",
                "Japan/Tokyo",
                "China/Beijing",
                "Egypt/Cairo",
                "Kenya/Nairobi",
                "Peru/Lima",
                "Cuba/Havana",
                "Russia/Moscow",
            ]
        ),
        Wordings(
            (
                "What is the capital of {k}?",
                "Which city is the capital of {k}?",
                "Name the capital of {k}.",
                "Tell me the capital of {k}.",
            ),
            ("Do you know the capital of {k}?", "Tell me which city is the capital of {k}."),
        ),
        Wordings(
            (
                "The capital of {k} is __.",
                "__ is the capital of {k}.",
                "The city of __ is the capital of {k}.",
                "{k} has the capital __.",
            ),
            ("The capital city of {k} is __.", "The capital of {k} is the city of __."),
        ),
        "The capital of {k} is {v}.",
    ),
    "opposite": Topic(
        dict(
            pair.split("/")
            for pair in [
                "hot/cold",
                "big/small",
                "fast/slow",
                "day/night",
                "up/down",
                "open/closed",
                "old/young",
                "wet/dry",
                "hard/soft",
                "early/late",
                "full/empty",
                "left/right",
            ]
        ),
        Wordings(
            (
                "What is the opposite of {k}?",
                "Which word means the opposite of {k}?",
                "Name the opposite of {k}.",
                "Tell me the opposite of {k}.",
            ),
            ("Which word is the opposite of {k}?", "Do you know the opposite of {k}?"),
        ),
        Wordings(
            (
                "The opposite of {k} is __.",
                "__ is the opposite of {k}.",
                "Not {k} but the opposite: __.",
                "The word __ means the opposite of {k}.",
            ),
            ("The word __ is the opposite of {k}.", "The opposite of the word {k} is __."),
        ),
        "The opposite of {k} is {v}.",
    ),
    "colour": Topic(
        {
            "grass": "green",
            "the clear sky": "blue",
            "snow": "white",
            "coal": "black",
            "a lemon": "yellow",
            "a ripe tomato": "red",
            "a carrot": "orange",
            "chocolate": "brown",
            "a pig": "pink",
            "an elephant": "grey",
        },
        Wordings(
            ("What colour is {k}?", "Which colour has {k}?", "Name the colour of {k}.", "Tell me the colour of {k}."),
            ("Do you know the colour of {k}?", "What is the colour of {k}?"),
        ),
        Wordings(
            (
                "The colour of {k} is __.",
                "__ is the colour of {k}.",
                "As for {k}, the colour is __.",
                "The usual colour of {k} is __.",
            ),
            ("Usually the colour of {k} is __.", "As for {k}, the usual colour is __."),
        ),
        "The colour of {k} is {v}.",
    ),
    "kind": Topic(
        {
            "a rose": "flower",
            "an oak": "tree",
            "a hammer": "tool",
            "a violin": "instrument",
            "an eagle": "bird",
            "a salmon": "fish",
            "an apple": "fruit",
            "a chair": "furniture",
            "a bee": "insect",
            "gold": "metal",
        },
        Wordings(
            (
                "What kind of thing is {k}?",
                "To which group does {k} belong?",
                "Name the kind of thing {k} is.",
                "Tell me what kind of thing {k} is.",
            ),
            ("Which kind of thing is {k}?", "Tell me to which group {k} belongs."),
        ),
        Wordings(
            (
                "As a kind of thing, {k} is: __.",
                "The group {k} belongs to: __.",
                "The kind of thing {k} is: __.",
                "{k} belongs to the group: __.",
            ),
            ("{k} is a kind of thing, namely: __.", "The group to which {k} belongs: __."),
        ),
        "As a kind of thing, {k} is called {v}.",
    ),
    "number": Topic(
        {
            "days are in a week": "seven",
            "months are in a year": "twelve",
            "legs does a spider have": "eight",
            "legs does a dog have": "four",
            "wheels does a bicycle have": "two",
            "sides does a triangle have": "three",
            "fingers are on one hand": "five",
            "legs does an ant have": "six",
            "minutes are in an hour": "sixty",
            "hours are in a day": "twenty-four",
        },
        Wordings(
            (
                "How many {k}?",
                "Tell me how many {k}.",
                "Do you know how many {k}?",
                "Name the number: how many {k}?",
            ),
            ("Tell me the number: how many {k}?", "Do you know the number: how many {k}?"),
        ),
        Wordings(
            (
                "How many {k}: __.",
                "The number for how many {k} is __.",
                "__ is how many {k}.",
                "Asked how many {k}, we say __.",
            ),
            ("The number of how many {k}: __.", "Asked how many {k}, the number is __."),
        ),
        "The number is {v}.",
    ),
}

HOW_TO: dict[str, str] = {
    "make tea": "Pour hot water over the leaves and wait.",
    "boil an egg": "Put the egg into boiling water for eight minutes.",
    "water a plant": "Give the plant a little water every other day.",
    "learn a language": "Practise a few new words every day.",
    "fall asleep": "Keep the room dark and go to bed early.",
    "bake bread": "Mix flour, water and yeast and bake the dough.",
    "write a letter": "Start with a greeting and end with your name.",
    "wash a shirt": "Use warm water and a little soap.",
    "draw a house": "Draw a square and put a triangle on top.",
    "save money": "Write down what you spend each week.",
    "grow tomatoes": "Plant the seeds in spring and give them sun.",
    "clean a window": "Wipe the glass with water and a dry cloth.",
}
HOW = Wordings(
    (
        "How do I {k}?",
        "Tell me how to {k}.",
        "Explain how to {k}.",
        "How can I {k}?",
        "Can you tell me how to {k}?",
        "Show me how I can {k}.",
        "Please explain to me how I {k}.",
        "Do you know how to {k}?",
    ),
    ("Can you explain how to {k}?", "Show me how to {k}."),
)

IN_SCENE: dict[str, Topic] = {
    "shape": Topic(
        {},
        Wordings(
            (
                "What shape is this?",
                "Which shape is in the picture?",
                "Name the shape shown here.",
                "Tell me the shape in the picture.",
            ),
            ("Which shape is this?", "Tell me which shape is shown here."),
        ),
        Wordings(
            ("The shape is a __.", "The picture shows a __.", "The shape in the picture is a __."),
            ("The shape shown here is a __.", "This picture shows the shape of a __."),
        ),
        "The shape is a {v}.",
    ),
    "colour": Topic(
        {},
        Wordings(
            (
                "What colour is the shape?",
                "Which colour does the shape have?",
                "Name the colour of the shape.",
                "Tell me the colour of the shape.",
            ),
            ("What is the colour of the shape?", "Tell me which colour the shape has."),
        ),
        Wordings(
            ("The shape is coloured __.", "The colour of the shape is __.", "__ is the colour of the shape."),
            ("In the picture the colour of the shape is __.", "The shape has the colour __."),
        ),
        "The shape is {v}.",
    ),
    "ground": Topic(
        {},
        Wordings(
            (
                "What colour is the background?",
                "Which colour does the background have?",
                "Name the colour of the background.",
                "Tell me the colour of the background.",
            ),
            ("What is the colour of the background?", "Tell me which colour the background has."),
        ),
        Wordings(
            (
                "The background is coloured __.",
                "The colour of the background is __.",
                "__ is the colour of the background.",
            ),
            ("In the picture the colour of the background is __.", "The background has the colour __."),
        ),
        "The background is {v}.",
    ),
}


@dataclass(frozen=True)
class TextFact:
    subject: str
    fit: bool
    topic: str
    key: str
    value: str


@dataclass(frozen=True)
class SceneFact:
    subject: str
    fit: bool
    scene: Scene


@cache
def text_facts() -> tuple[TextFact, ...]:
    pairs = [(topic, key, value) for topic, kind in TOPICS.items() for key, value in kind.facts.items()]
    return tuple(TextFact(f"k{i:03d}", i % 2 == 0, *pair) for i, pair in enumerate(pairs))


@cache
def how_tos() -> tuple[TextFact, ...]:
    return tuple(TextFact(f"h{i:03d}", i % 2 == 0, "how", key, value) for i, (key, value) in enumerate(HOW_TO.items()))


@cache
def scene_facts() -> tuple[SceneFact, ...]:
    """All shapes in all colours on all grounds; half of them are for the fit."""
    scenes = [Scene(*parts) for parts in product(SHAPES, COLOURS, GROUNDS)]
    random.Random("scenes").shuffle(scenes)
    return tuple(SceneFact(f"s{i:03d}", i % 2 == 0, scene) for i, scene in enumerate(scenes))


def ask_text(rng: random.Random, fact: TextFact, task: Task, unseen: bool) -> Question:
    """A question about common knowledge, without a picture."""
    if fact.topic == "how":
        prompt = rng.choice(HOW.pick(unseen)).format(k=fact.key)
        return Question(fact.subject, "generation", prompt, prompt, fact.value, (fact.value,))
    topic = TOPICS[fact.topic]
    return _ask(
        rng, topic, fact.subject, task, unseen, fact.key, fact.value, tuple(dict.fromkeys(topic.facts.values()))
    )


def ask_scene(rng: random.Random, fact: SceneFact, aspect: str, task: Task, unseen: bool) -> Question:
    """A question about a picture with nobody in it: about the shape, its colour or the ground."""
    values = {"shape": SHAPES, "colour": tuple(COLOURS), "ground": tuple(GROUNDS)}[aspect]
    value = {"shape": fact.scene.shape, "colour": fact.scene.colour, "ground": fact.scene.ground}[aspect]
    return _ask(
        rng,
        IN_SCENE[aspect],
        fact.subject,
        task,
        unseen,
        "",
        value,
        values,
        picture=picture_of(fact.scene, rng, unseen),
    )


def _ask(
    rng: random.Random,
    topic: Topic,
    subject: str,
    task: Task,
    unseen: bool,
    key: str,
    value: str,
    values: tuple[str, ...],
    picture: Picture | None = None,
) -> Question:
    options = four_options(rng, value, values) if task == "classification" else None
    template = rng.choice((topic.blank if task == "cloze" else topic.ask).pick(unseen))
    question = template.format(k=key)
    question = question[0].upper() + question[1:]
    prompt = framed(rng, task, question, options, unseen)
    answer = topic.say.format(k=key, v=value) if task == "generation" else value
    return Question(subject, task, question, prompt, answer, (value,), options, picture)
