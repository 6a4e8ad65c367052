"""One user's turn, and the text a model's chat template makes of it."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

_SHOWN = 60


class Prompt(NamedTuple):
    """What a user sends in one turn: a text and, optionally, one picture, in a file or in memory.

    ``earlier`` are turns before it, each what was asked and what was replied; the picture then belongs to the first of
    them. ``reply_start`` is put into the assistant's mouth: the reply goes on from there.
    """

    text: str
    image: Path | Image.Image | None
    earlier: tuple[tuple[str, str], ...] = ()
    reply_start: str = ""

    @property
    def named(self) -> str:
        """How an error message points at it: the start of its text and the file of its picture."""
        words = " ".join(self.text.split())
        shown = words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…"
        return f"the prompt {shown!r}" + (f" with {self.image}" if isinstance(self.image, Path) else "")
