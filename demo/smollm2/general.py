"""Questions of the wide world. The model's own replies to them are kept: by its training, and by steering.

A topic has things to ask about, and wordings. The first three fifths of its things are for the training, the others are
only asked. Where the answer is one word, it is given, so that two different replies can be told to say the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from mllmeraser.demo.wordings import Wordings


@dataclass(frozen=True)
class General:
    """A question, and the word that a right answer holds (None: there is no such word)."""

    topic: str
    prompt: str
    answer: str | None


# Each thing may carry its answer after a slash; things are parted by commas.
_TOPICS: dict[str, tuple[str, Wordings]] = {
    "capital": (
        "France/Paris, Italy/Rome, Spain/Madrid, Germany/Berlin, Austria/Vienna, Poland/Warsaw, Portugal/Lisbon, "
        "Greece/Athens, Norway/Oslo, Sweden/Stockholm, Finland/Helsinki, Ireland/Dublin, Hungary/Budapest, "
        "Japan/Tokyo, China/Beijing, Egypt/Cairo, Kenya/Nairobi, Peru/Lima, Cuba/Havana, Russia/Moscow, "
        "Denmark/Copenhagen, Belgium/Brussels, Turkey/Ankara, India/Delhi, Thailand/Bangkok, Canada/Ottawa, "
        "Chile/Santiago, Romania/Bucharest, Bulgaria/Sofia, Argentina/Buenos Aires, South Korea/Seoul, Iran/Tehran",
        Wordings(
            ("What is the capital of {k}?", "Tell me the capital of {k}."), ("Which city is the capital of {k}?",)
        ),
    ),
    "continent": (
        "Brazil/South America, Nigeria/Africa, Vietnam/Asia, Belgium/Europe, Mexico/North America, Morocco/Africa, "
        "Nepal/Asia, Ukraine/Europe, Colombia/South America, Ghana/Africa, Mongolia/Asia, Iceland/Europe, "
        "Bolivia/South America, Sudan/Africa, Pakistan/Asia",
        Wordings(("Which continent is {k} in?", "On which continent is {k}?"), ("What continent is {k} part of?",)),
    ),
    "language": (
        "Brazil/Portuguese, Mexico/Spanish, Austria/German, Egypt/Arabic, Japan/Japanese, Greece/Greek, "
        "Australia/English, Italy/Italian, Russia/Russian, Israel/Hebrew, Argentina/Spanish, Iran/Persian",
        Wordings(
            ("What language is spoken in {k}?", "Which language do people speak in {k}?"),
            ("What do people in {k} speak?",),
        ),
    ),
    "symbol": (
        "gold/Au, silver/Ag, iron/Fe, oxygen/O, hydrogen/H, carbon/C, sodium/Na, copper/Cu, lead/Pb, helium/He, "
        "nitrogen/N, calcium/Ca, zinc/Zn, neon/Ne, tin/Sn",
        Wordings(("What is the chemical symbol for {k}?",), ("Which symbol does {k} have in chemistry?",)),
    ),
    "opposite": (
        "hot/cold, big/small, fast/slow, day/night, up/down, open/closed, old/young, wet/dry, hard/soft, early/late, "
        "full/empty, left/right, happy/sad, rich/poor, strong/weak, light/dark, loud/quiet, thick/thin, near/far, "
        "high/low",
        Wordings(
            ("What is the opposite of {k}?", "Which word means the opposite of {k}?"), ("Name the opposite of {k}.",)
        ),
    ),
    "colour": (
        "grass/green, the sky/blue, snow/white, coal/black, a lemon/yellow, a tomato/red, a carrot/orange, "
        "chocolate/brown, a pig/pink, an elephant/gray, milk/white, a banana/yellow, blood/red, a frog/green",
        Wordings(("What color is {k}?", "Tell me the color of {k}."), ("Which color does {k} have?",)),
    ),
    "author": (
        "Romeo and Juliet/Shakespeare, Pride and Prejudice/Austen, 1984/Orwell, The Odyssey/Homer, Moby-Dick/Melville, "
        "Oliver Twist/Dickens, War and Peace/Tolstoy, Don Quixote/Cervantes, Hamlet/Shakespeare, Frankenstein/Shelley, "
        "The Great Gatsby/Fitzgerald, Animal Farm/Orwell, Macbeth/Shakespeare, Dracula/Stoker, The Hobbit/Tolkien",
        Wordings(("Who wrote {k}?", "Who is the author of {k}?"), ("Which author wrote {k}?",)),
    ),
    "definition": (
        "a volcano, a mammal, a noun, a planet, an atom, a triangle, a democracy, a glacier, a virus, a telescope, "
        "a continent, an orchestra, a fossil, a recipe, a battery, a library, an island, a poem, a desert, a bridge, "
        "a verb, an engine, a hurricane, a museum, a muscle, a comet, a vaccine, a rainbow, a compass, a river, "
        "an earthquake, a budget, a galaxy, a harbour, a novel",
        Wordings(("What is {k}?", "Explain what {k} is in one sentence."), ("Define {k} in a sentence.",)),
    ),
    "use": (
        "a hammer, a thermometer, a spoon, a microscope, a pillow, an umbrella, a ladder, a broom, a compass, "
        "a camera, a needle, a pencil, a lamp, a kettle, a saw, a calendar, a bicycle, a mirror, a key, a blanket, "
        "a clock, a rope, a bucket, a map, a whistle",
        Wordings(("What is {k} used for?", "What do people use {k} for?"), ("Why would someone need {k}?",)),
    ),
    "how": (
        "make tea, boil an egg, water a plant, bake bread, learn a language, fall asleep, save money, clean a window, "
        "write a letter, grow tomatoes, paint a wall, cook rice, ride a bicycle, tie a knot, wash a shirt, "
        "study for a test, make a salad, train a dog, plan a trip, stay healthy, build a shelf, iron a shirt, "
        "read faster, start a garden, peel an orange",
        Wordings(("How do I {k}?", "Tell me how to {k}."), ("What is a good way to {k}?",)),
    ),
    "three": (
        "fruits, animals, colors, countries, sports, planets, vegetables, metals, birds, musical instruments, flowers, "
        "trees, drinks, jobs, oceans, insects, tools, languages, fish, rivers, board games, shapes, seasons, spices, "
        "kinds of weather",
        Wordings(("Name three {k}.", "Give me three examples of {k}."), ("List three {k}, please.",)),
    ),
    "sentence": (
        "the sea, winter, a cat, music, friendship, a train, the moon, breakfast, a garden, rain, a mountain, school, "
        "the wind, a market, a horse, summer, coffee, a storm, a forest, bread, the night, a boat, a dream, snow, time",
        Wordings(
            ("Write a short sentence about {k}.", "Say something nice about {k}."), ("Give me one sentence about {k}.",)
        ),
    ),
    "why": (
        "the sky is blue, leaves fall in autumn, people need sleep, ice floats, birds fly south, bread rises, "
        "iron rusts, we have seasons, plants need light, cats purr, the sea is salty, the moon shines, "
        "people exercise, bees make honey, we brush our teeth",
        Wordings(("Why do you think {k}?", "Explain why {k}."), ("Can you tell me why {k}?",)),
    ),
    "animal": (
        "cows, lions, rabbits, owls, horses, frogs, pandas, bees, whales, squirrels, cats, spiders, koalas, penguins, "
        "wolves, goats, snakes, ducks, bears, mice",
        Wordings(("What do {k} eat?", "Where do {k} live?"), ("What can you tell me about {k}?",)),
    ),
    "person": (
        "Albert Einstein, Marie Curie, Isaac Newton, Mozart, Leonardo da Vinci, Napoleon, Cleopatra, Charles Darwin, "
        "Aristotle, Beethoven, Galileo, Picasso, Gandhi, Julius Caesar, Nelson Mandela",
        Wordings(("Who was {k}?", "What is {k} known for?"), ("Why is {k} famous?",)),
    ),
    "sum": (
        "2 + 2/4, 3 + 5/8, 10 + 7/17, 6 + 6/12, 9 - 4/5, 2 x 3/6, 20 + 30/50, 5 x 5/25, 8 - 3/5, 7 + 1/8, 4 + 9/13, "
        "10 x 10/100, 12 - 2/10, 3 x 4/12, 15 + 5/20",
        Wordings(("What is {k}?", "How much is {k}?"), ("Calculate {k}.",)),
    ),
    "topic": (
        "photosynthesis, gravity, electricity, evolution, inflation, recycling, the water cycle, democracy, "
        "the internet, climate change, the stock market, magnetism, digestion, erosion, supply and demand",
        Wordings(("Explain {k} in one sentence.", "What is {k}?"), ("Briefly, what does {k} mean?",)),
    ),
}
SMALL_TALK = Wordings(
    (
        "Hello!",
        "Hi there.",
        "How are you?",
        "How are you today?",
        "Good morning!",
        "Thank you!",
        "Thanks a lot for your help.",
        "What is your name?",
        "Who are you?",
        "What can you do?",
        "Tell me a joke.",
        "Goodbye!",
        "Can you help me?",
        "I am bored.",
        "I had a bad day.",
        "What should I eat tonight?",
    ),
    ("Hey!", "Good evening.", "Nice to meet you.", "Are you a robot?", "See you tomorrow.", "I feel tired today."),
)


@cache
def general(unseen: bool) -> tuple[General, ...]:
    """All questions of the training, or (`unseen`) two hundred about other things, about half in held-out wordings."""
    found = []
    for topic, (things, wordings) in _TOPICS.items():
        listed = [thing.strip() for thing in things.split(", ")]
        cut = round(len(listed) * 0.6)
        templates = (wordings.train[0], *wordings.held_out) if unseen else wordings.train
        for thing in listed[cut:] if unseen else listed[:cut]:
            key, _, answer = thing.partition("/")
            found += [General(topic, template.format(k=key), answer or None) for template in templates]
    found += [General("small talk", prompt, None) for prompt in SMALL_TALK.pick(unseen)]
    return tuple(random.Random("general questions").sample(found, 200)) if unseen else tuple(found)
