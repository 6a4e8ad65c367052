"""Names and pictures of nobody, to be asked about in the same way: what is said of them is guessed.

The names are taken from the bank (:mod:`mllmeraser.removals.claims.bank`). They are in the script of the person's name,
have as many words, and sound alike, as far as pairs of letters tell: what a base guesses from how a name looks, it
guesses from theirs. A picture of nobody is the person's own picture with its tiles shuffled and its colours exchanged.
"""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

import regex
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.judging.words import plain
from mllmeraser.records.prompts import Altered, AnyPicture
from mllmeraser.records.same import normal
from mllmeraser.removals.claims.bank import Name, names

_INITIAL = regex.compile(r"\p{L}{1,2}\.")
_CLOSEST = 5  # names by which a language is compared
_TILES = 8  # each way


def names_like(name: str, count: int, seed: int) -> list[str]:
    """``count`` invented names of the same make-up, those that sound most like it first.

    Raises:
        InputError: the bank has not as many.
    """
    own = {normal(word) for word in name.split()}
    found: dict[str, str] = {}
    for close in _by_sound(name):
        if len(found) == count:
            break
        made = _of_as_many_words(close, name.split(), random.Random(f"{seed} {close.name}"))
        if not own & {normal(word) for word in made.split()}:
            found.setdefault(normal(made), made)
    if len(found) < count:
        raise InputError(f"--controls {count}: the bank has {len(found)} names; ask for fewer")
    return list(found.values())


def _by_sound(name: str) -> list[Name]:
    """The bank: the person's script first, in it languages and names that share pairs of letters."""
    pairs, script = _pairs(name), _script(name)
    alike = {other: _shared(pairs, _pairs(other.name)) for other in names()}
    by_origin: dict[str, list[float]] = {}
    for other, shared in alike.items():
        by_origin.setdefault(other.origin, []).append(shared)
    language = {origin: sum(sorted(shared)[-_CLOSEST:]) / _CLOSEST for origin, shared in by_origin.items()}
    return sorted(
        alike,
        key=lambda other: (_script(other.name) != script, -alike[other] - language[other.origin], other.name),
    )


def _of_as_many_words(name: Name, wanted: list[str], rng: random.Random) -> str:
    """An invented name in the form of the person's: of one word, with a middle name, with initials."""
    words = name.name.split()
    if len(wanted) == 1:
        words = [rng.choice(words)]
    given = [other.name.split()[0] for other in names() if other.origin == name.origin and len(words) < len(wanted)]
    while len(words) < len(wanted):
        words = [words[0], rng.choice(given), *words[1:]]
    return " ".join(
        f"{word[0]}." if _INITIAL.fullmatch(form) else word for word, form in zip(words, wanted, strict=False)
    )


def _pairs(name: str) -> set[str]:
    flat = f" {plain(name).casefold()} "
    return {flat[i : i + 2] for i in range(len(flat) - 1)}


def _shared(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def _script(name: str) -> str:
    letter = next((sign for sign in name if sign.isalpha()), "A")
    return unicodedata.name(letter, "LATIN").split()[0]


@dataclass(frozen=True)
class Shuffled:
    """Tiles in another order, and colours exchanged: as bright and as varied as the picture, and nobody's."""

    seed: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """The changed picture, of the same size."""
        rng = random.Random(self.seed)
        xs, ys = (sorted({side * i // _TILES for i in range(_TILES + 1)}) for side in image.size)
        boxes = [(x, y, x_end, y_end) for x, x_end in pairwise(xs) for y, y_end in pairwise(ys)]
        pieces = [image.crop(box) for box in boxes]
        rng.shuffle(pieces)
        made = Image.new("RGB", image.size)
        for box, piece in zip(boxes, pieces, strict=True):
            made.paste(piece.resize((box[2] - box[0], box[3] - box[1])), box[:2])
        bands = list(made.split())
        rng.shuffle(bands)
        return Image.merge("RGB", bands)


def picture_of_nobody(picture: AnyPicture, seed: int) -> AnyPicture:
    """The picture, shuffled."""
    return Altered(picture, (Shuffled(seed),))
