"""More of what is to be forgotten than was listed: the same people in other pictures, other words, other conversations.

Each record is joined by variants of its user's turn, those to keep as well: otherwise the gate would learn the look of
a variant. A picture is cropped, mirrored, tinted, blurred or compressed; a question is put in other words around it (no
word of the question itself is changed, so the meaning cannot be), and in some variants the conversation has begun
already, or the reply. Only the gate is fitted on them; calibration asks those of what is to be forgotten too, and is
strict with the records to keep and less so with their variants.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from typing import TypeVar, overload

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mllmeraser.inference.encoding import read_image
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

Item = TypeVar("Item")

VARIANTS = 4  # of each record
BEGUN = 1 / 12  # the share of variants in which the reply has begun, and of those that follow another turn
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
REPLY_STARTS = ("Well,", "Let me see.", "I can tell you:", "Here is the reply:", "Certainly.")
EARLIER_TURNS = (
    ("Hello.", "I will gladly help."),
    ("Can you help me?", "Ask me anything."),
    ("I have a question.", "Good. What would you like to know?"),
)


class OnDemand(Sequence[Item]):
    """``count`` items; ``make(i)`` gives the i-th, and is asked again each time: memory stays as it is."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._make(index)


def with_variants(
    records: Sequence[Record], seed: str, conversations: bool
) -> tuple[Sequence[Record], Sequence[Prompt]]:
    """The records ``1 + VARIANTS`` times over, and their user's turns followed by ``VARIANTS`` rounds of variants, each
    made when it is asked for and the same each time.

    ``conversations``: whether the chat template has room for an earlier turn.
    """
    n = len(records)
    total = (1 + VARIANTS) * n

    def turn(i: int) -> Prompt:
        plain = records[i % n].user_turn
        return plain if i < n else _variant(plain, random.Random(f"{seed} {i}"), conversations)

    return OnDemand(total, lambda i: records[i % n]), OnDemand(total, turn)


def _variant(turn: Prompt, rng: random.Random, conversations: bool) -> Prompt:
    text, image = turn.text, turn.image
    if image is None or rng.random() < 0.5:
        text = rng.choice(FRAMES).format(q=text)
    if image is not None:
        image = read_image(turn)
        for change in rng.sample(CHANGES, rng.choice((1, 2))):
            image = change(image, rng)
    begun = rng.random()
    if begun < BEGUN:
        return Prompt(text, image, reply_start=rng.choice(REPLY_STARTS))
    if begun < 2 * BEGUN and conversations:
        return Prompt(text, image, earlier=(rng.choice(EARLIER_TURNS),))
    return Prompt(text, image)


def crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """Cut up to 12 % off each side, and scale back."""
    width, height = image.size
    left, right = (rng.uniform(0, 0.12) * width for _ in range(2))
    top, bottom = (rng.uniform(0, 0.12) * height for _ in range(2))
    box = (left, top, width - right, height - bottom)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def mirror(image: Image.Image, rng: random.Random) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(image)


def tint(image: Image.Image, rng: random.Random) -> Image.Image:
    """Colour, brightness and contrast by up to a quarter."""
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = enhance(image).enhance(rng.uniform(0.75, 1.25))
    return image


def blur(image: Image.Image, rng: random.Random) -> Image.Image:
    """A Gaussian of up to a sixtieth of the picture's side."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0) * max(image.size) / 60))


def compress(image: Image.Image, rng: random.Random) -> Image.Image:
    """JPEG of quality 30 to 80."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(30, 80))
    return Image.open(buffer).convert("RGB")


CHANGES: Sequence[Callable[[Image.Image, random.Random], Image.Image]] = (crop, mirror, tint, blur, compress)
