"""Changes to a record's picture or wording that `--augment` does not make in its fit.

The changes of the fit (``steering/augment.py``) cut off up to 12 % of a side, mirror, tint by a quarter, blur by at
most a sixtieth of the side, compress to a quality of at least 30, and put short sentences before and after a question.
The changes here go further or are of another kind. (Mirroring has no degrees, so a mirrored picture is also turned.)
Every question is asked in all wordings. The wordings of others and the longer ones were written without sight of those
of the fit; the base itself often fails on them. The wordings of others were first asked after the method was finished.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageChops, ImageFilter, ImageOps

from mllmeraser.inference.encoding import read_image
from mllmeraser.records.prompts import Prompt

SHORT = ("A friend asks: {q}", "{q} I need it for a list.", "One more thing. {q}", "Say it in a word or two: {q}")
OF_OTHERS = (
    "Please be so kind and help me: {q}",
    "{q} Thanks so much in advance!",
    "Quick, I'm running late: {q}",
    "Hey there, hope you're doing well! {q}",
    "{q} Just a short reply is fine.",
    "I need this for my homework. {q}",
    "Okay, next one: {q}",
    "{q} Sorry to bother you with this.",
    "My sister wanted me to ask you this: {q}",
    "{q} No rush, take your time.",
    "Ugh, I totally forgot this again. {q}",
    "Right then. {q} Go on, tell me.",
)
LONGER = (
    "Hi there! {q} Thanks in advance.",
    "Quick one before my meeting starts: {q}",
    "{q} I need this for a form I am filling in.",
    "Sorry to bother you again. {q}",
    "Could you please help me with something? {q} I would really appreciate it.",
    "ok so my friend and I were wondering about this. {q}",
    "{q} No rush, whenever you get a chance.",
    "I forgot to write this down earlier. {q} Cheers!",
    "Hey, in a bit of a hurry here. {q} Thanks a lot!",
    "{q} My sister asked me and I had no idea.",
    "Good morning. I am updating my notes and got stuck on this: {q}",
    "Right, next question. {q} I just want to be sure about it.",
)


def crop(image: Image.Image) -> Image.Image:
    """The picture without 14 % at every side, scaled back to its size."""
    width, height = image.size
    box = (0.14 * width, 0.14 * height, 0.86 * width, 0.86 * height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def shift(image: Image.Image) -> Image.Image:
    """Shifted by a tenth to the right and down; what leaves comes in again on the other side."""
    return ImageChops.offset(image, image.width // 10, image.height // 10)


def flip(image: Image.Image) -> Image.Image:
    """Mirrored left to right, and turned by six degrees."""
    return ImageOps.mirror(image).rotate(6, Image.Resampling.BICUBIC)


def blur(image: Image.Image) -> Image.Image:
    """Each pixel replaced by the mean of a square that reaches a fortieth of the side from it."""
    return image.filter(ImageFilter.BoxBlur(max(image.size) / 40))


def jpeg(image: Image.Image) -> Image.Image:
    """Saved as JPEG of quality 20 and read again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    return Image.open(buffer).convert("RGB")


def shrink(image: Image.Image) -> Image.Image:
    """Scaled to half its size and back."""
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)
    return half.resize(image.size, Image.Resampling.BILINEAR)


PICTURES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "crop": crop,
    "shift": shift,
    "flip": flip,
    "blur": blur,
    "JPEG": jpeg,
    "half size": shrink,
}


WORDINGS: Mapping[str, Sequence[str]] = {
    "paraphrase": SHORT,
    "paraphrase of others": OF_OTHERS,
    "longer paraphrase": LONGER,
}


def in_another_picture(turn: Prompt, change: Callable[[Image.Image], Image.Image]) -> Prompt:
    """The prompt with its picture changed."""
    return turn._replace(image=change(read_image(turn)))


def in_other_words(turn: Prompt, frames: Sequence[str]) -> list[Prompt]:
    """The prompt with each of the frames around its text."""
    return [turn._replace(text=frame.format(q=turn.text)) for frame in frames]
