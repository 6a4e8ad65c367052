"""Pictures with nobody in them: one coloured shape on a coloured ground."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

from mllmeraser.demo.portraits import CANONICAL, Colour, Variation, photograph

COLOURS: dict[str, Colour] = {
    "red": (210, 30, 40),
    "green": (40, 150, 60),
    "blue": (40, 70, 210),
    "yellow": (245, 220, 40),
    "orange": (245, 135, 25),
    "purple": (130, 40, 160),
}
GROUNDS: dict[str, Colour] = {
    "white": (250, 250, 250),
    "black": (15, 15, 18),
    "grey": (150, 150, 150),
    "pink": (255, 190, 205),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
_SIDE = 192


@dataclass(frozen=True)
class Scene:
    """A shape, its colour (of `COLOURS`) and the colour of the ground (of `GROUNDS`)."""

    shape: str
    colour: str
    ground: str


def draw_scene(scene: Scene, variation: Variation = CANONICAL) -> Image.Image:
    """A picture of the scene, 64 x 64 pixels, RGB."""
    image = Image.new("RGB", (_SIDE, _SIDE), GROUNDS[scene.ground])
    pen = ImageDraw.Draw(image)
    ink, ground = COLOURS[scene.colour], GROUNDS[scene.ground]
    if scene.shape == "circle":
        pen.ellipse((46, 46, 146, 146), fill=ink)
    elif scene.shape == "square":
        pen.rectangle((50, 50, 142, 142), fill=ink)
    elif scene.shape == "triangle":
        pen.polygon(((96, 40), (154, 146), (38, 146)), fill=ink)
    elif scene.shape == "star":
        pen.polygon(_star(), fill=ink)
    elif scene.shape == "ring":
        pen.ellipse((40, 40, 152, 152), fill=ink)
        pen.ellipse((70, 70, 122, 122), fill=ground)
    else:  # cross
        pen.rectangle((80, 36, 112, 156), fill=ink)
        pen.rectangle((36, 80, 156, 112), fill=ink)
    return photograph(image, variation, ground)


def _star() -> list[tuple[float, float]]:
    points = []
    for i in range(10):
        radius = 64 if i % 2 == 0 else 27
        angle = math.pi * (i / 5 - 0.5)
        points.append((96 + radius * math.cos(angle), 98 + radius * math.sin(angle)))
    return points
