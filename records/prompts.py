"""A user's turn: its words and its pictures. Only the pass that shows a picture opens it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from PIL import Image

from mllmeraser.errors import clipped


@dataclass(frozen=True)
class Picture:
    """A picture as the bytes of its file, in memory; ``name`` says where they came from."""

    data: bytes = field(repr=False)
    name: str

    def __str__(self) -> str:
        return self.name


class Change(Protocol):
    """A change of a picture. Its ``repr`` describes it fully, so that passes over the picture can be cached."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """The changed picture."""


@dataclass(frozen=True)
class Altered:
    """A picture with changes, which are made whenever it is opened; until then they take no memory and no time."""

    picture: AnyPicture
    changes: tuple[Change, ...]


AnyPicture: TypeAlias = Path | Picture | Image.Image | Altered


class Prompt(NamedTuple):
    """What a user sends in one turn: a text and, optionally, a picture, in a file or in memory.

    ``examples`` are pictures that stand before it. ``earlier`` holds the turns before this one: what was asked and what
    was replied. The pictures then belong to the first of them. ``system`` is the system turn ahead of all.
    ``reply_start`` is the start of the assistant's reply; the model goes on from there. With ``raw`` the tokenizer gets
    the text alone, without a chat template; in it ``<image>`` stands for each picture.
    """

    text: str
    image: AnyPicture | None
    earlier: tuple[tuple[str, str], ...] = ()
    reply_start: str = ""
    raw: bool = False
    examples: tuple[AnyPicture, ...] = ()
    system: str = ""

    @property
    def pictures(self) -> tuple[AnyPicture, ...]:
        """The pictures, in the order in which the model sees them."""
        return self.examples if self.image is None else (*self.examples, self.image)

    @property
    def named(self) -> str:
        """The prompt as an error names it: the start of its text and the file of its picture."""
        words = " ".join(self.text.split())
        picture = self.image.picture if isinstance(self.image, Altered) else self.image
        return f"the prompt {clipped(words)!r}" + (f" with {picture}" if isinstance(picture, Path | Picture) else "")
