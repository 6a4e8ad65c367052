"""One user's turn, and the text a model's chat template makes of it."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Prompt(NamedTuple):
    """What a user sends in one turn: a text and, optionally, one picture, in a file or in memory."""

    text: str
    image: Path | Image.Image | None
