"""One user's turn: its words and its pictures, which are opened only by the pass that shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from PIL import Image

_SHOWN = 60


@dataclass(frozen=True)
class Picture:
    """A picture as the bytes of its file, which lie in memory; ``name`` says where they came from."""

    data: bytes = field(repr=False)
    name: str

    def __str__(self) -> str:
        return self.name


class Change(Protocol):
    """What is done to a picture. Its ``repr`` says all of it, so that a pass over the picture can be remembered."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """The changed picture."""


@dataclass(frozen=True)
class Altered:
    """A picture with changes that are made whenever it is opened: until then it takes no memory and no time."""

    picture: AnyPicture
    changes: tuple[Change, ...]


AnyPicture: TypeAlias = Path | Picture | Image.Image | Altered


class Prompt(NamedTuple):
    """What a user sends in one turn: a text and, optionally, one picture, in a file or in memory.

    ``earlier`` are turns before it, each what was asked and what was replied; the picture then belongs to the first of
    them. ``reply_start`` is put into the assistant's mouth: the reply goes on from there. With ``raw`` the text is all
    the tokenizer gets, without a chat template; ``<image>`` stands in it for each of the pictures ``examples``, and
    then for ``image``.
    """

    text: str
    image: AnyPicture | None
    earlier: tuple[tuple[str, str], ...] = ()
    reply_start: str = ""
    raw: bool = False
    examples: tuple[AnyPicture, ...] = ()

    @property
    def pictures(self) -> tuple[AnyPicture, ...]:
        """Its pictures in the order in which they are seen."""
        return self.examples if self.image is None else (*self.examples, self.image)

    @property
    def named(self) -> str:
        """How an error message points at it: the start of its text and the file of its picture."""
        words = " ".join(self.text.split())
        shown = words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…"
        picture = self.image.picture if isinstance(self.image, Altered) else self.image
        return f"the prompt {shown!r}" + (f" with {picture}" if isinstance(picture, Path | Picture) else "")
