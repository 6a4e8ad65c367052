"""The words of a text as a reader compares them: without regard to case, accents and a genitive's "'s".

Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan put no spaces between words. Their characters are compared as
they stand in a row.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer

# Letters that Unicode does not decompose into a letter and an accent, and the many signs for one quote or hyphen.
_SIGNS = {
    "ø": "o",
    "Ø": "O",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "Đ": "D",
    "ı": "i",
    "æ": "ae",
    "Æ": "Ae",
    "œ": "oe",
    "Œ": "Oe",
}
_SIGNS |= dict.fromkeys("’‘ʼ`´′", "'") | dict.fromkeys("“”„″", '"') | dict.fromkeys("‐‑‒–—−", "-")
_TABLE = str.maketrans(_SIGNS)

# What a reader takes for the same.
_SAME = [
    (regex.compile(rf"(?<!\w){pattern}(?!\w)"), word)
    for pattern, word in (
        (r"(?:(?i:united states(?: of america)?)|USA?|U\.S\.(?:A\.)?)", "USA"),
        (r"(?:(?i:united kingdom|great britain)|UK|U\.K\.)", "UK"),
        (r"(?i:woman|girl)", "female"),
        (r"(?i:man|boy)", "male"),
        (r"(?i:mt\.?)", "Mount"),
        (r"(?i:st\.?)", "Saint"),
    )
]
_INITIALS = regex.compile(r"(?<!\w)(?:\p{L}{1,2}\.){2,}")

_UNSPACED = (
    r"\p{Script=Han}\p{Script=Katakana}ー\p{Script=Hiragana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}"
    r"\p{Script=Myanmar}\p{Script=Tibetan}"
)
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]"
_WORD = regex.compile(rf"{_LETTER}+(?:'{_LETTER}+)*", regex.V1)
_RUN = regex.compile(rf"[{_UNSPACED}]+", regex.V1)
TOKEN = regex.compile(rf"{_LETTER}+(?:'{_LETTER}+)*|[{_UNSPACED}]\p{{M}}*", regex.V1)


@lru_cache(4096)
def plain(text: str) -> str:
    """A text without accents, with straight quotes and hyphens, and with one word for what means the same.

    Marks that are no accents stay: the vowels of Thai and Hindi, the voicing of Japanese. Case stays too.

    >>> plain("Córdoba, United States")
    'Cordoba, USA'
    """
    flat = unicodedata.normalize("NFKD", text.translate(_TABLE))
    flat = unicodedata.normalize("NFC", "".join(sign for sign in flat if not _accent(unicodedata.combining(sign))))
    for pattern, word in _SAME:
        flat = pattern.sub(word, flat)
    return str(_INITIALS.sub(lambda found: found[0].replace(".", ""), flat))


def _accent(combining: int) -> bool:
    """Whether a mark of this class may be left out: accents, and the optional vowels of Hebrew and Arabic."""
    return combining >= 200 or 10 <= combining <= 35


def spaced(text: str) -> list[str]:
    """The words of a :func:`plain` text, in scripts with spaces; each as it is written, without a genitive's "'s".

    >>> spaced("Dublin's well-known mayor, O'Hara")
    ['Dublin', 'well', 'known', 'mayor', "O'Hara"]
    """
    return [regex.sub(r"'s$", "", word, flags=regex.I) for word in _WORD.findall(text)]


def unspaced(text: str) -> list[str]:
    """The runs of characters of scripts without spaces, in a :func:`plain` text."""
    return list(_RUN.findall(text))


def is_unspaced(text: str) -> bool:
    """Whether a text begins in a script without spaces."""
    return _RUN.match(text) is not None


@cache
def _stemmer() -> PorterStemmer:
    from nltk.stem.porter import PorterStemmer  # takes seconds

    return PorterStemmer()


@lru_cache(65536)
def stem(word: str) -> str:
    """The stem of an English word (Porter), in lower case; of a word in other letters the word itself.

    >>> stem("collecting") == stem("collects")
    True
    """
    lower = word.casefold()
    return str(_stemmer().stem(lower)) if lower.isascii() and lower.isalpha() else lower
