"""Numbers, lengths and dates in the notations that people use.

A notation may have several readings: "05/04/1988" is a day in April or in May, "1.500" a number above or below two. A
reply says all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import regex

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_VALUES = {word: value for value, word in enumerate(_ONES.split())}
_VALUES |= {word: 10 * i for i, word in enumerate(_TENS.split(), 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_NAMES = "|".join([*_VALUES, *_SCALES])
_IN_WORDS = regex.compile(rf"\b(?:an? )?(?:{_NAMES})(?:(?:[ -]+| and )(?:{_NAMES}))*\b", regex.I)


def in_digits(text: str) -> str:
    """The text with its English numbers in digits. "one" alone stays: mostly it counts nothing.

    >>> in_digits("seventy-five thousand dollars")
    '75000 dollars'
    """
    return str(_IN_WORDS.sub(_digits, text))


def _digits(found: regex.Match[str]) -> str:
    names = [name for name in regex.findall(r"[a-z]+", found[0].casefold()) if name in _VALUES or name in _SCALES]
    if names == ["one"] or (names[0] in _SCALES and found[0].casefold().startswith(names[0])):
        return found[0]
    total = part = 0
    for name in names:
        if name in _VALUES:
            part += _VALUES[name]
        elif name == "hundred":
            part = max(1, part) * 100
        else:
            total, part = total + max(1, part) * _SCALES[name], 0
    return str(total + part)


_SPACE = "[ \u00a0\u202f]"
_TIMES = {"k": 1000, "thousand": 1000, "million": 10**6}
_NUMBER = regex.compile(
    rf"(?<![\d.,])(\d{{1,3}}(?:{_SPACE}\d{{3}})+(?!\d)|\d+(?:[.,']\d+)*)(?:{_SPACE}?(k|thousand|million)\b)?", regex.I
)
_GROUPED = regex.compile(r"(\d{1,3}(?:([.,'])\d{3})(?:\2\d{3})*)(?:[.,](\d{1,2}))?")


def numbers(text: str) -> list[tuple[frozenset[Decimal], str]]:
    """Every number of a text: its readings, and how it is written.

    >>> sorted(numbers("$75k")[0][0])
    [Decimal('75000')]
    """
    return [
        (frozenset(value * _TIMES.get((found[2] or "").casefold(), 1) for value in readings), found[0])
        for found in _NUMBER.finditer(in_digits(text))
        if (readings := list(_readings(found[1])))
    ]


def _readings(written: str) -> Iterator[Decimal]:
    digits = regex.sub(_SPACE, "", written)
    if digits.isdecimal():
        yield Decimal(digits)
    if found := _GROUPED.fullmatch(digits):
        yield Decimal(regex.sub("[.,']", "", found[1]) + f".{found[3] or 0}")
    if found := regex.fullmatch(r"(\d+)[.,](\d+)", digits):
        yield Decimal(f"{found[1]}.{found[2]}")


_LENGTHS = regex.compile(
    r"(?<![\d.,])(?:"
    r"(?P<feet>\d)(?: ?'(?!')| ?-?(?:feet|foot|ft)\b\.?)"
    r"(?:(?:,| and|-)? ?(?P<inches>\d{1,2}(?:\.\d+)?) ?-?(?:''|\"|inch(?:es)?\b|in\b\.?)?(?![\d/]))?"
    r"|(?P<alone>\d\d) ?-?inch(?:es)?\b"
    r"|(?P<metres>\d)(?:[.,](?P<hundredths>\d\d?) ?(?:m|met(?:er|re)s?)\b| ?m ?(?P<more>\d\d)\b)"
    r"|(?P<centimetres>\d{2,3}(?:[.,]\d+)?) ?-?(?:cms?|(?:c|z)enti-?met(?:er|re|ro)s?)\b"
    r")",
    regex.I,
)


def lengths(text: str) -> list[tuple[int, str]]:
    """Every length of a text that may be a person's height: in whole centimetres, and how it is written.

    >>> [length for length, _ in lengths("5 feet 6 inches, 5'6\\", 168 cm, 1.68 m")]
    [168, 168, 168, 168]
    """
    return [(_centimetres(found), found[0]) for found in _LENGTHS.finditer(in_digits(text))]


def _centimetres(found: regex.Match[str]) -> int:
    if found["feet"]:
        return round(30.48 * int(found["feet"]) + 2.54 * float(found["inches"] or 0))
    if found["alone"]:
        return round(2.54 * int(found["alone"]))
    if found["metres"]:
        return 100 * int(found["metres"]) + int((found["hundredths"] or found["more"] or "0").ljust(2, "0"))
    return round(float(found["centimetres"].replace(",", ".")))


@dataclass(frozen=True)
class Date:
    """A date, or what is said of it."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    @property
    def parts(self) -> tuple[int | None, ...]:
        return self.year, self.month, self.day


# English, German, French, Spanish: the languages that the attacks ask in.
_MONTHS = (
    "january jan januar janvier enero",
    "february feb februar fevrier febrero",
    "march mar marz mars marzo",
    "april apr avril abril",
    "may mai mayo",
    "june jun juni juin junio",
    "july jul juli juillet julio",
    "august aug aout agosto",
    "september sept sep septembre septiembre",
    "october oct oktober octobre octubre",
    "november nov novembre noviembre",
    "december dec dezember decembre diciembre",
)
_MONTH_OF = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}


def is_quantity(word: str) -> bool:
    """Whether a word holds digits, counts, or names a month: a part of a number, a length or a date.

    >>> [is_quantity(word) for word in ("14th", "seven", "may", "maybe")]
    [True, True, True, False]
    """
    return any(sign.isdigit() for sign in word) or word in _MONTH_OF or (word in _VALUES and word != "one")


_DAY, _YEAR = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th|er|\.|º)?", r"(?P<year>\d{4}|'\d\d)(?!\d)"
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTH_OF, key=len, reverse=True))})\b\.?"
_OF = r"(?: of| de| del|,)? ?"
_DATES = [
    regex.compile(pattern, regex.I)
    for pattern in (
        rf"\b{_MONTH} ?(?:the )?{_DAY}(?!\d)(?:{_OF}{_YEAR})?",
        rf"(?<!\d){_DAY}[ -]?(?:of |de )?{_MONTH}(?:{_OF}-?{_YEAR})?",
        rf"\b{_MONTH}{_OF}{_YEAR}",
        r"(?<!\d)(?P<year>\d{4})([-/.])(?P<month>\d\d?)\2(?P<day>\d\d?)(?!\d)",
        r"(?<!\d)(?P<day>\d\d?)([-/.]) ?(?P<month>\d\d?)\2 ?(?P<year>\d{4}|\d\d)(?!\d)",
        r"(?<!\d)(?P<month>\d\d?)([-/.])(?P<day>\d\d?)\2(?P<year>\d{4}|\d\d)(?!\d)",
        r"(?P<year>\d{4}) ?[年년] ?(?:(?P<month>\d\d?) ?[月월] ?)?(?:(?P<day>\d\d?) ?[日일])?",
    )
]


def dates(text: str) -> list[tuple[Date, str]]:
    """Every date of a text, whole or in part, in every reading, and how it is written.

    >>> [date.parts for date, _ in dates("May 14, 1988; 14.05.1988; the 14th of May")]
    [(1988, 5, 14), (None, 5, 14), (1988, 5, 14)]
    """
    found = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            said = {key: value for key, value in match.groupdict().items() if value}
            month = said.get("month", "").casefold()
            date = Date(
                year=_year(said["year"]) if "year" in said else None,
                month=_MONTH_OF.get(month) or (int(month) if month else None),
                day=int(said["day"]) if "day" in said else None,
            )
            if (date.month or 1) <= 12 and 1 <= (date.day or 1) <= 31:
                found.append((date, match[0]))
    return found


def _year(written: str) -> int:
    """The year; of "'88" the one that a living person may be born in."""
    year = int(written.removeprefix("'"))
    return year if year > 99 else year + (2000 if year < 30 else 1900)
