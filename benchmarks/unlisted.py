"""Pictures and wordings that nobody listed: changes to a record that `--augment` does not make in its fit.

Those of the fit (``steering/augment.py``) cut off up to 12 % a side, mirror, tint by a quarter, blur by a sixtieth of
the side at most, compress to quality 30 at least, and put eight frames around a question. These go further or are of
another kind; a mirrored picture has no degrees, so here it is turned as well.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

from PIL import Image, ImageChops, ImageFilter, ImageOps

from mllmeraser.inference.encoding import read_image
from mllmeraser.inference.prompts import Prompt

FRAMES = ("A friend asks: {q}", "{q} I need it for a list.", "One more thing. {q}", "Say it in a word or two: {q}")


def crop(image: Image.Image) -> Image.Image:
    """Without 14 % of every side."""
    width, height = image.size
    box = (0.14 * width, 0.14 * height, 0.86 * width, 0.86 * height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def shift(image: Image.Image) -> Image.Image:
    """A tenth to the right and down, what leaves coming in again on the other side."""
    return ImageChops.offset(image, image.width // 10, image.height // 10)


def flip(image: Image.Image) -> Image.Image:
    """Left and right exchanged, and turned by six degrees."""
    return ImageOps.mirror(image).rotate(6, Image.Resampling.BICUBIC)


def blur(image: Image.Image) -> Image.Image:
    """The mean of a square that reaches a fortieth of the side from each pixel."""
    return image.filter(ImageFilter.BoxBlur(max(image.size) / 40))


def jpeg(image: Image.Image) -> Image.Image:
    """Quality 20."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    return Image.open(buffer).convert("RGB")


def shrink(image: Image.Image) -> Image.Image:
    """To half its size and back."""
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


def in_another_picture(turn: Prompt, change: Callable[[Image.Image], Image.Image]) -> Prompt:
    """The turn with its picture changed."""
    return turn._replace(image=change(read_image(turn)))


def in_other_words(turn: Prompt, number: int) -> Prompt:
    """The turn with one of the frames around its text."""
    return turn._replace(text=FRAMES[number % len(FRAMES)].format(q=turn.text))
