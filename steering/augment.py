"""More of what is to be forgotten than was listed: the same people in other pictures and other words.

Each forget record is joined by variants of its user's turn, each retain record by one: otherwise the gate would learn
the look of a variant. A picture is cropped, mirrored, tinted, blurred or compressed; a question is put in other words
around it (no word of the question itself is changed, so the meaning cannot be). Only the gate is fitted on them.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mllmeraser.inference.encoding import read_image
from mllmeraser.inference.prompts import Prompt
from mllmeraser.steering.on_demand import OnDemand
from mllmeraser.steering.samples import Sample

VARIANTS = 3  # of each record
FRAMES = (
    "Please tell me: {q}",
    "I would like to know: {q}",
    "Question: {q}",
    "{q} Please answer.",
    "Here is a question. {q}",
    "Could you help me with this? {q}",
    "{q} Thank you.",
    "Quickly: {q}",
)


def with_variants(samples: Sequence[Sample], seed: int) -> tuple[Sequence[Sample], Sequence[Prompt]]:
    """The samples twice over, and their user's turns followed by a variant of each."""
    n = len(samples)

    def turn(i: int) -> Prompt:
        plain = samples[i % n].user_turn
        return plain if i < n else _variant(plain, random.Random(f"variant {seed} {i}"))

    return OnDemand(2 * n, lambda i: samples[i % n]), OnDemand(2 * n, turn)


def variants(turn: Prompt, rng: random.Random) -> list[Prompt]:
    """``VARIANTS`` other forms of a user's turn."""
    return [_variant(turn, rng) for _ in range(VARIANTS)]


def _variant(turn: Prompt, rng: random.Random) -> Prompt:
    reworded = rng.choice(FRAMES).format(q=turn.text)
    if turn.image is None:
        return Prompt(reworded, None)
    image = read_image(turn)
    for change in rng.sample(CHANGES, rng.choice((1, 2))):
        image = change(image, rng)
    return Prompt(reworded if rng.random() < 0.5 else turn.text, image)


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
