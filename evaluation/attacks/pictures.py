"""The same picture, altered as pictures are when they are passed on: none of it changes who is seen.

Robustness to common corruptions and simple geometry (Hendrycks & Dietterich, arXiv 1903.12261).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

from PIL import Image, ImageFilter, ImageOps

from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene, asked_in_other_ways
from mllmeraser.inference.encoding import read_image


def crop(picture: Image.Image) -> Image.Image:
    """The middle 80 % of each side, brought back to the old size."""
    width, height = picture.size
    inner = (round(0.1 * width), round(0.1 * height), round(0.9 * width), round(0.9 * height))
    return picture.crop(inner).resize(picture.size, Image.Resampling.BICUBIC)


def flip(picture: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(picture)


def rotate(picture: Image.Image) -> Image.Image:
    """Turned by 15 degrees, the corners grey."""
    return picture.rotate(15, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))


def jpeg(picture: Image.Image) -> Image.Image:
    """Saved as JPEG of quality 15 and read again."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=15)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def blur(picture: Image.Image) -> Image.Image:
    """Gaussian blur, its radius 2 % of the shorter side."""
    return picture.filter(ImageFilter.GaussianBlur(0.02 * min(picture.size)))


def altered(alter: Callable[[Image.Image], Image.Image], scene: Scene) -> list[Reading]:
    """Every question about a picture, about the altered picture."""
    return asked_in_other_ways(
        scene, lambda sample, turn: [turn._replace(image=alter(read_image(turn)))] if turn.image else []
    )


PICTURES = [
    Attack(f"image-{name}", about, partial(altered, alter))
    for name, about, alter in (
        ("crop", "The middle 80 % of the picture.", crop),
        ("flip", "The picture mirrored.", flip),
        ("rotate", "The picture turned by 15°.", rotate),
        ("jpeg", "The picture as JPEG of quality 15.", jpeg),
        ("blur", "The picture blurred (radius 2 % of its side).", blur),
    )
]
