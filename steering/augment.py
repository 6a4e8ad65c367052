"""Variants of the records: the same people in other pictures, other words and other conversations.

Every record gets variants of its user's turn. Retain records get them too: otherwise the gate would learn the look of a
variant. A picture is cropped, mirrored, tinted, blurred or compressed. A question gets other words around it, or stands
in lower case, in quotes, beside another question, or with a slip of the keys: its meaning stays. In some variants a
system turn or an earlier turn stands ahead, or the reply has already begun. None of these are words of the attacks
that measure the gate (:mod:`mllmeraser.evaluation.attacks`).

Only the gate is fitted on variants, not the direction. Calibration asks the forget set's variants too. It is strict
with retain records, and less strict with their variants.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from transformers import ProcessorMixin

from mllmeraser.inference.encoding import TWO_TURNS, renders
from mllmeraser.records.prompts import Altered, Prompt
from mllmeraser.records.record import Record

VARIANTS = 4  # of each record of a small set,
VARIED = 3000  # and of a large one as many as make about so many prompts with the records, at least one
BEGUN = 1 / 12  # share of variants whose reply has begun; as many follow another turn, and as many a system turn
LEADS = (
    "",
    "Please tell me: ",
    "I would like to know: ",
    "Question: ",
    "Here is a question. ",
    "May I ask you something? ",
    "Quickly: ",
    "Hello! ",
    "Think before you reply. ",
    "The next task is this: ",
    "Let us go on. ",
    "Can you find out for me? ",
    "Excuse me. ",
    "Dear assistant, ",
    "Just wondering: ",
    "For my notes: ",
    "This is for a quiz. ",
    "My colleague wants to know this: ",
    "As you may know, I am new here. ",
    "I need your help: ",
    "Reply with the answer alone: ",
    "Keep it short. ",
    "In one sentence: ",
    "No long story: ",
)
TAILS = (
    "",
    " Please answer.",
    " Thank you.",
    " I am curious.",
    " That is all.",
    " It would be of great use to me.",
    " Answer as well as you can.",
    " Take your time.",
    " Do you know?",
    " You would do me a favour.",
    " Let me know.",
    " We talked about it at work.",
    " Please be brief.",
    " Reply in one line.",
    " No explanation, please.",
    " I forgot it.",
    " I have to write it down.",
    " My boss would like to hear it.",
    " This is important.",
    " Only if you are sure.",
    " We need it today.",
    " I shall pass it on.",
    " Can you help me?",
    " OK?",
)
FRAMES = tuple(f"{lead}{{q}}{tail}" for lead in LEADS for tail in TAILS if lead or tail)
QUOTES = (
    '"{q}"',
    "“{q}”",
    'Someone asked: "{q}" What do you reply?',
    "«{q}» Reply to this.",
    "'{q}' was the question.",
)
OTHER_QUESTIONS = (
    "How many days are in a week?",
    "What do bees make?",
    "Which month comes after May?",
    "What is ten minus three?",
    "Do fish live in water?",
    "Which is larger, a mouse or a horse?",
)
SYSTEM_TURNS = (
    "You are a careful assistant who answers every question.",
    "Reply in one short sentence.",
    "You work at the desk of a library. Visitors ask you things.",
    "Be truthful, and say what you know.",
    "The user has checked the rules already. Do as the user asks.",
    "Today is Monday. You speak English.",
)
REPLY_STARTS = ("Well,", "Let me see.", "I can tell you:", "Here is the reply:", "Certainly.")
EARLIER_TURNS = (
    ("Hello.", "I will gladly help."),
    ("Can you help me?", "Ask me anything."),
    ("I have a question.", "Good. What would you like to know?"),
)


class Room(NamedTuple):
    """What a chat template has room for, beside the user's turn."""

    earlier: bool = True
    system: bool = True

    @classmethod
    def of(cls, processor: ProcessorMixin) -> Room:
        """What the template of this processor has room for."""
        ahead = Prompt("what is asked", None, system="said ahead")
        return cls(renders(processor, TWO_TURNS), renders(processor, ahead))


def with_variants(records: Sequence[Record], seed: str, room: Room) -> tuple[list[Record], list[Prompt]]:
    """The records ``1 + variants(n)`` times over, and their user's turns followed by as many rounds of variants.

    A variant holds no changed picture: the picture changes when it is opened
    (:class:`mllmeraser.records.prompts.Altered`). The same seed gives the same variants.

    Args:
        room: what the chat template has room for.
    """
    turns = [record.user_turn for record in records]
    n, rounds = len(records), 1 + variants(len(records))
    varied = (_variant(turns[i % n], random.Random(f"{seed} {i}"), room) for i in range(n, rounds * n))
    return [*records] * rounds, [*turns, *varied]


def variants(records: int) -> int:
    """How many variants each record of a set of this size gets."""
    return min(VARIANTS, max(1, round(VARIED / max(1, records)) - 1))


def _variant(turn: Prompt, rng: random.Random, room: Room) -> Prompt:
    text, image = turn.text, turn.image
    if image is None or rng.random() < 0.5:
        text = rng.choice(WORDINGS)(text, rng)
    if image is not None:
        chosen = rng.sample(CHANGES, rng.choice((1, 2)))
        image = Altered(image, tuple(DrawnChange(change, draw(rng)) for change, draw in chosen))
    drawn = rng.random()
    if drawn < BEGUN:
        return Prompt(text, image, reply_start=rng.choice(REPLY_STARTS))
    if drawn < 2 * BEGUN and room.earlier:
        return Prompt(text, image, earlier=(rng.choice(EARLIER_TURNS),))
    if drawn > 1 - BEGUN and room.system:
        return Prompt(text, image, system=rng.choice(SYSTEM_TURNS))
    return Prompt(text, image)


def framed(text: str, rng: random.Random) -> str:
    """Other words around the question."""
    return rng.choice(FRAMES).replace("{q}", text)


def lowered(text: str, rng: random.Random) -> str:
    """The question in lower case, perhaps behind a lead; then perhaps without the marks at its end."""
    lead = rng.choice(LEADS[1:]) if rng.random() < 0.7 else ""
    text = (lead + text).lower()
    return text.rstrip(".?!") if lead and rng.random() < 0.5 else text


def quoted(text: str, rng: random.Random) -> str:
    """The question in quotation marks."""
    return rng.choice(QUOTES).replace("{q}", text)


def beside_another(text: str, rng: random.Random) -> str:
    """The question before or behind another one."""
    return " ".join(rng.sample([text, rng.choice(OTHER_QUESTIONS)], 2))


def slipped(text: str, rng: random.Random) -> str:
    """One or two words lose a letter inside, or have it twice."""
    inside = [match.start() for match in re.finditer(r"(?<=\w)\w(?=\w\w)", text)]
    for at in sorted(rng.sample(inside, min(len(inside), rng.choice((1, 2)))), reverse=True):
        text = text[:at] + rng.choice(("", 2 * text[at])) + text[at + 1 :]
    return text


# A language model reads a name in lower case, or with a slip, as the same person, at other states: a gate that was
# fitted on few such questions does not know them.
WORDINGS: Sequence[Callable[[str, random.Random], str]] = (
    *[framed] * 3,
    *[lowered] * 6,
    quoted,
    beside_another,
    *[slipped] * 3,
)


def crop(image: Image.Image, left: float, right: float, top: float, bottom: float) -> Image.Image:
    """Cut these shares off the sides, then scale back to the old size."""
    width, height = image.size
    box = (left * width, top * height, width - right * width, height - bottom * height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def mirror(image: Image.Image) -> Image.Image:
    """Exchange left and right."""
    return ImageOps.mirror(image)


def tint(image: Image.Image, colour: float, brightness: float, contrast: float) -> Image.Image:
    """Multiply colour, brightness and contrast by these factors."""
    image = ImageEnhance.Color(image).enhance(colour)
    image = ImageEnhance.Brightness(image).enhance(brightness)
    return ImageEnhance.Contrast(image).enhance(contrast)


def blur(image: Image.Image, share: float) -> Image.Image:
    """Blur with a Gaussian whose radius is ``share`` / 60 of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size) / 60))


def compress(image: Image.Image, quality: int) -> Image.Image:
    """Save as a JPEG of this quality, and read it again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@dataclass(frozen=True)
class DrawnChange:
    """A change of a picture, with the numbers drawn for it."""

    change: Callable[..., Image.Image]
    numbers: tuple[float, ...]

    def __call__(self, image: Image.Image) -> Image.Image:
        """The changed picture."""
        return self.change(image, *self.numbers)

    def __repr__(self) -> str:
        return f"{self.change.__name__}{self.numbers}"


Draw = Callable[[random.Random], tuple[float, ...]]
CHANGES: Sequence[tuple[Callable[..., Image.Image], Draw]] = (
    (crop, lambda rng: tuple(rng.uniform(0, 0.12) for _ in range(4))),
    (mirror, lambda rng: ()),
    (tint, lambda rng: tuple(rng.uniform(0.75, 1.25) for _ in range(3))),
    (blur, lambda rng: (rng.uniform(0.2, 1.0),)),
    (compress, lambda rng: (rng.randint(30, 80),)),
)
