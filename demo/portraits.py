"""Portraits of people who do not exist, drawn with Pillow.

A face has thirteen independent features (`Face`). A picture of it adds a `Variation`: the tilt of the head, the crop
and tint of the picture, the expression, the noise. The model is trained on mild variations only. Strong variations are
held out, so that "a picture it has never seen" means more than another random seed.
"""

from __future__ import annotations

import random
from dataclasses import astuple, dataclass, fields
from operator import attrgetter, ne
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, int, int]

SIZE = 64  # pixels of a finished picture, both ways
_CANVAS = 192  # three times as large; scaling down gives smooth edges without an anti-aliasing library

BACKGROUNDS: tuple[Colour, ...] = (
    (214, 69, 65),
    (244, 179, 80),
    (250, 240, 120),
    (110, 190, 90),
    (60, 150, 170),
    (70, 90, 190),
    (160, 90, 180),
    (235, 235, 235),
    (70, 70, 75),
)
SKINS: tuple[Colour, ...] = ((255, 224, 196), (236, 188, 150), (198, 140, 98), (141, 85, 54), (92, 58, 40))
HAIRS: tuple[Colour, ...] = (
    (30, 25, 25),
    (105, 62, 30),
    (225, 190, 95),
    (190, 80, 30),
    (170, 170, 175),
    (200, 60, 120),
    (40, 120, 150),
)
EYES: tuple[Colour, ...] = ((40, 90, 190), (50, 130, 60), (90, 55, 25), (20, 20, 20))
SHIRTS: tuple[Colour, ...] = (
    (190, 30, 45),
    (240, 140, 30),
    (240, 220, 60),
    (30, 130, 70),
    (35, 70, 160),
    (120, 50, 140),
    (245, 245, 245),
    (35, 35, 40),
)


@dataclass(frozen=True)
class Face:
    """Thirteen features. Each is a number below the number of choices in `CHOICES`."""

    background: int
    pattern: int
    skin: int
    shape: int
    hair: int
    hair_colour: int
    eyes: int
    glasses: int
    beard: int
    hat: int
    shirt: int
    shirt_pattern: int
    ears: int


CHOICES = Face(
    background=len(BACKGROUNDS),
    pattern=5,
    skin=len(SKINS),
    shape=4,
    hair=7,
    hair_colour=len(HAIRS),
    eyes=len(EYES),
    glasses=4,
    beard=4,
    hat=5,
    shirt=len(SHIRTS),
    shirt_pattern=4,
    ears=3,
)
FEATURES = tuple(field.name for field in fields(Face))
_features_of = attrgetter(*FEATURES)  # astuple copies deeply, and the world compares faces 160,000 times


def random_face(rng: random.Random) -> Face:
    return Face(*(rng.randrange(count) for count in astuple(CHOICES)))


def differences(a: Face, b: Face) -> int:
    """The number of features in which two faces differ."""
    return sum(map(ne, _features_of(a), _features_of(b)))


@dataclass(frozen=True)
class Variation:
    """What differs between two pictures of a person; the default is the canonical picture."""

    tilt: float = 0.0  # degrees
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)  # pixels of the finished picture
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factor on red, green, blue
    smile: float = 0.5  # 0 serious, 1 laughing
    gaze: float = 0.0  # -1 left, 1 right
    noise: float = 0.0  # standard deviation in grey levels
    seed: int = 0  # of the noise


CANONICAL = Variation()


def mild_variation(rng: random.Random) -> Variation:
    """A variation of the kind that the model sees in training."""
    light = rng.uniform(0.9, 1.1)
    return Variation(
        tilt=rng.uniform(-8, 8),
        zoom=rng.uniform(0.92, 1.1),
        shift=(rng.uniform(-3, 3), rng.uniform(-3, 3)),
        tint=(light * rng.uniform(0.95, 1.05), light * rng.uniform(0.95, 1.05), light * rng.uniform(0.95, 1.05)),
        smile=rng.random(),
        gaze=rng.uniform(-1, 1),
        noise=rng.uniform(0, 8),
        seed=rng.randrange(2**31),
    )


def strong_variation(rng: random.Random) -> Variation:
    """A held-out variation: its pose, crop, colour or noise goes further than in any picture of the training."""
    mild = mild_variation(rng)
    kind = rng.choice(("pose", "crop", "colour", "noise"))
    side = rng.choice((-1, 1))
    light = rng.choice((0.8, 1.2))
    return Variation(
        tilt=side * rng.uniform(9, 13) if kind == "pose" else mild.tilt,
        zoom=rng.uniform(1.12, 1.2) if kind == "crop" else mild.zoom,
        shift=(side * rng.uniform(3.5, 5), mild.shift[1]) if kind == "pose" else mild.shift,
        tint=(light * mild.tint[0], mild.tint[1], mild.tint[2] / light) if kind == "colour" else mild.tint,
        smile=mild.smile,
        gaze=mild.gaze,
        noise=rng.uniform(12, 20) if kind == "noise" else mild.noise,
        seed=mild.seed,
    )


def draw_portrait(face: Face, variation: Variation = CANONICAL) -> Image.Image:
    """A picture of the face, `SIZE` x `SIZE` pixels, RGB."""
    image = Image.new("RGB", (_CANVAS, _CANVAS), BACKGROUNDS[face.background])
    pen = ImageDraw.Draw(image)
    _background(pen, face)
    _shoulders(pen, face)
    _hair_behind(pen, face)
    _head(pen, face)
    _eyes(pen, face, variation)
    _mouth_and_beard(pen, face, variation)
    _hair_front(pen, face)
    _glasses(pen, face)
    _hat(pen, face)
    return photograph(image, variation, BACKGROUNDS[face.background])


def photograph(image: Image.Image, variation: Variation, border: Colour) -> Image.Image:
    """Apply what a variation changes after the drawing: tilt, crop, scale, tint and grain."""
    scale = image.width / SIZE
    turned = image.rotate(
        variation.tilt,
        resample=Image.Resampling.BICUBIC,
        translate=(round(variation.shift[0] * scale), round(variation.shift[1] * scale)),
        fillcolor=border,
    )
    side = turned.width / variation.zoom
    margin = (turned.width - side) / 2
    if variation.zoom < 1:  # zoomed out: more border comes into view
        wide = Image.new("RGB", (round(side), round(side)), border)
        wide.paste(turned, (round(-margin), round(-margin)))
        turned, side, margin = wide, float(wide.width), 0.0
    small = turned.resize(
        (SIZE, SIZE), Image.Resampling.BOX, box=(margin, margin, margin + side, margin + side), reducing_gap=None
    )
    pixels = np.asarray(small, dtype=np.float32) * np.asarray(variation.tint, dtype=np.float32)
    if variation.noise:
        grain = np.random.default_rng(variation.seed).standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + grain * variation.noise
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, round(part * factor))) for part in colour)
    return red, green, blue


def _background(pen: ImageDraw.ImageDraw, face: Face) -> None:
    ground = BACKGROUNDS[face.background]
    ink = _shade(ground, 0.62) if sum(ground) > 330 else _shade(ground, 1.75)
    if face.pattern == 1:
        for x in range(0, _CANVAS, 40):
            pen.rectangle((x, 0, x + 18, _CANVAS), fill=ink)
    elif face.pattern == 2:
        for y in range(0, _CANVAS, 40):
            pen.rectangle((0, y, _CANVAS, y + 18), fill=ink)
    elif face.pattern == 3:
        for x in range(14, _CANVAS, 44):
            for y in range(14, _CANVAS, 44):
                pen.ellipse((x - 12, y - 12, x + 12, y + 12), fill=ink)
    elif face.pattern == 4:
        pen.polygon(((0, 0), (_CANVAS, 0), (0, _CANVAS)), fill=ink)


def _shoulders(pen: ImageDraw.ImageDraw, face: Face) -> None:
    cloth, skin = SHIRTS[face.shirt], SKINS[face.skin]
    ink = _shade(cloth, 0.5) if sum(cloth) > 330 else _shade(cloth, 2.2)
    pen.rounded_rectangle((22, 150, 170, 240), radius=34, fill=cloth)
    if face.shirt_pattern == 1:
        for y in range(156, _CANVAS, 14):
            pen.rectangle((30, y, 162, y + 6), fill=ink)
    elif face.shirt_pattern == 2:
        for x in range(36, 160, 20):
            for y in range(160, _CANVAS, 16):
                pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=ink)
    pen.rectangle((80, 130, 112, 160), fill=_shade(skin, 0.88))
    if face.shirt_pattern == 3:  # a tie
        pen.polygon(((88, 158), (104, 158), (110, _CANVAS), (82, _CANVAS)), fill=ink)


_HEADS = ((48, 44, 144, 148), (56, 38, 136, 156), (50, 44, 142, 150), (46, 42, 146, 152))


def _head(pen: ImageDraw.ImageDraw, face: Face) -> None:
    skin = SKINS[face.skin]
    left, top, right, bottom = _HEADS[face.shape]
    for x in (left, right):
        pen.ellipse((x - 11, 86, x + 11, 114), fill=_shade(skin, 0.88))
        if face.ears == 1:
            pen.ellipse((x - 7, 110, x + 7, 124), fill=(250, 210, 40), outline=(120, 90, 0))
        elif face.ears == 2:
            pen.rectangle((x - 4, 110, x + 4, 138), fill=(60, 220, 230), outline=(10, 60, 90))
    if face.shape == 2:
        pen.rounded_rectangle((left, top, right, bottom), radius=22, fill=skin)
    elif face.shape == 3:  # a pointed chin
        pen.pieslice((left, top, right, top + 100), 180, 360, fill=skin)
        pen.polygon(((left, top + 50), (right, top + 50), (110, bottom), (82, bottom)), fill=skin)
    else:
        pen.ellipse((left, top, right, bottom), fill=skin)


def _eyes(pen: ImageDraw.ImageDraw, face: Face, variation: Variation) -> None:
    brow = _shade(HAIRS[face.hair_colour], 0.7)
    for x in (76, 116):
        pen.ellipse((x - 11, 84, x + 11, 102), fill=(255, 255, 255))
        centre = x + 3 * variation.gaze
        pen.ellipse((centre - 7, 86, centre + 7, 100), fill=EYES[face.eyes])
        pen.rectangle((x - 11, 74, x + 11, 78), fill=brow)
    pen.line((96, 98, 92, 116, 100, 116), fill=_shade(SKINS[face.skin], 0.65), width=3)


def _mouth_and_beard(pen: ImageDraw.ImageDraw, face: Face, variation: Variation) -> None:
    hair = _shade(HAIRS[face.hair_colour], 0.9)
    if face.beard == 2:  # full
        pen.chord((54, 78, 138, 158), 18, 162, fill=hair)
    elif face.beard == 3:  # goatee
        pen.ellipse((84, 134, 108, 160), fill=hair)
    opening = 3 + 9 * variation.smile
    pen.chord((80, 124 - opening, 112, 124 + opening), 0, 180, fill=(150, 30, 45))
    if face.beard == 1:  # moustache
        pen.chord((72, 110, 120, 134), 180, 360, fill=hair)


def _hair_behind(pen: ImageDraw.ImageDraw, face: Face) -> None:
    hair = HAIRS[face.hair_colour]
    if face.hair == 2:  # long
        pen.rounded_rectangle((36, 34, 156, 172), radius=50, fill=hair)
    elif face.hair == 3:  # curls all round
        for x, y in ((44, 60), (62, 36), (96, 26), (130, 36), (148, 60), (40, 92), (152, 92)):
            pen.ellipse((x - 24, y - 24, x + 24, y + 24), fill=hair)
    elif face.hair == 4:  # a bun
        pen.ellipse((72, 6, 120, 50), fill=hair)
    elif face.hair == 6:  # two plaits
        for x in (38, 154):
            pen.rounded_rectangle((x - 12, 70, x + 12, 176), radius=12, fill=hair)


def _hair_front(pen: ImageDraw.ImageDraw, face: Face) -> None:
    hair = HAIRS[face.hair_colour]
    if face.hair in (1, 2, 3, 4, 6):
        pen.chord((46, 32, 146, 116), 190, 350, fill=hair)
    elif face.hair == 5:  # spikes
        for x in range(50, 140, 18):
            pen.polygon(((x, 64), (x + 18, 64), (x + 9, 16)), fill=hair)


def _glasses(pen: ImageDraw.ImageDraw, face: Face) -> None:
    if face.glasses == 0:
        return
    for x in (74, 118):
        box = (x - 18, 78, x + 18, 108)
        if face.glasses == 1:
            pen.ellipse(box, outline=(20, 20, 20), width=5)
        elif face.glasses == 2:
            pen.rectangle(box, outline=(190, 20, 30), width=5)
        else:
            pen.rounded_rectangle(box, radius=10, fill=(15, 15, 20))
    pen.line((92, 90, 100, 90), fill=(20, 20, 20), width=5)


def _hat(pen: ImageDraw.ImageDraw, face: Face) -> None:
    if face.hat == 1:  # cap with a peak
        pen.chord((46, 20, 146, 108), 180, 360, fill=(30, 60, 140))
        pen.rounded_rectangle((40, 58, 176, 70), radius=6, fill=(20, 40, 100))
    elif face.hat == 2:  # woollen hat
        pen.chord((44, 12, 148, 110), 180, 360, fill=(190, 40, 60))
        pen.rectangle((44, 54, 148, 70), fill=(240, 230, 220))
        pen.ellipse((84, 0, 108, 24), fill=(240, 230, 220))
    elif face.hat == 3:  # top hat
        pen.rectangle((60, 0, 132, 58), fill=(25, 25, 30))
        pen.rectangle((36, 54, 156, 66), fill=(25, 25, 30))
        pen.rectangle((60, 42, 132, 54), fill=(200, 170, 60))
    elif face.hat == 4:  # headband
        pen.rectangle((48, 54, 144, 68), fill=(40, 180, 120))
