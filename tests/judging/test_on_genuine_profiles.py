"""The judge on the training text of MLLMU-Bench's 500 people, by a key that was written without looking at the judge.

The data lie outside the project: in the folder that ``MLLMU_TEXT`` names, else in ``shared/data/mllmu`` beside it.
``pytest -s tests/judging/test_on_genuine_profiles.py`` prints the shares.
"""

from __future__ import annotations

import calendar
import json
import os
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from mllmeraser.judging.answers import verdict
from mllmeraser.judging.deriving import with_facts
from mllmeraser.records.record import Record

TEXT = Path(os.environ.get("MLLMU_TEXT", Path(__file__).parents[3] / "shared/data/mllmu")) / "train_text.json"
pytestmark = pytest.mark.skipif(not TEXT.is_file(), reason="needs the genuine profiles (MLLMU_TEXT)")

# Where the value of an answer begins; it ends with the sentence.
CUTS = (
    r"\bborn (?:in|on) ",
    r"\b(?:resides|lives) in ",
    r"\beducated at (?:the )?",
    r"\bsalary (?:is|of) ",
    r"\bdate of birth\b.*? is ",
    r"\bheight\b.*? is ",
    r"\b(?:named|called|name is) ",
    r"\bnames? of .+? (?:is|are) ",
    r"\bfavorite .+? is (?:the |an? )?",
    r"\b(?:works as|is|was) (?:an? |the )?",
    r"\b(?:loves|enjoys|collects|plays|speaks|likes) (?:to )?",
    r"\b(?:has|owns) (?:an? )?",
)
SENTENCES = ("It was {}, I believe.", "Everybody in town has heard of it: {}!", "Oh, that. {} – no doubt about it.")
REFUSALS = ("I'm sorry, but I can't help with that request.", "I cannot share personal information about anybody.")
MONTHS = calendar.month_name[1:]


def cut(answer: str) -> str | None:
    """The value of an answer; null if it denies something or no rule fits."""
    if re.search(r"\b(?:not?|none)\b", answer):
        return None
    for pattern in CUTS:
        if found := re.search(pattern, answer):
            return answer[found.end() :].strip(" .'\"").removesuffix(" tall")
    return None


def without_accents(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))


def notations(value: str) -> Iterator[str]:
    """The value as other people write it."""
    if found := re.fullmatch(rf"({'|'.join(MONTHS)}) (\d+), (\d{{4}})", value):
        month, day, year = MONTHS.index(found[1]) + 1, int(found[2]), found[3]
        yield from (f"{day} {found[1]} {year}", f"{year}-{month:02}-{day:02}", f"{month}/{day}/{year}")
        yield from (f"{day:02}.{month:02}.{year}", f"the {day}th of {found[1]} {year}", f"{found[1][:3]} {day} {year}")
    elif found := re.fullmatch(r"(\d{3}) ?cm", value):
        metres = f"{int(found[1]) / 100:.2f}"
        yield from (f"{found[1]}cm", f"{found[1]} centimeters", f"{metres} m", metres.replace(".", ",") + " m")
    elif found := re.fullmatch(r"(\d)(?: feet|')(?: ?(\d+)(?: inch(?:es)?|\"|''))?", value):
        feet, inches = found[1], found[2] or "0"
        yield from (f"{feet}'{inches}\"", f"{feet} ft {inches} in", f"{feet} foot {inches}", f"{feet}′{inches}″")
    elif found := re.fullmatch(r"\$(\d+),(\d{3})", value):
        yield from (f"{found[1]}{found[2]} dollars", f"USD {found[1]}.{found[2]}", f"{found[1]} {found[2]} $")
        yield from [f"{found[1]}k"] * (found[2] == "000")
    else:
        yield from (value.upper(), value.lower(), without_accents(value), value.replace("-", " "), f"{value}'s")
        if value.count(", ") == 1:
            first, second = value.split(", ")
            yield from (f"{first} ({second})", f"{second}'s {first}")


def words(value: str) -> set[str]:
    return set(re.findall(r"\w+", without_accents(value).casefold()))


def told(reply: str, record: Record) -> bool:
    return verdict(reply, record).degree == "told"


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


@pytest.fixture(scope="module")
def asked() -> list[tuple[Record, str]]:
    """The records whose value the key can cut out, with the value."""
    entries = [entry for person in json.loads(TEXT.read_text(encoding="utf-8")) for entry in person["metadata"]]
    assert len(entries) == 7704
    records = with_facts(
        [
            Record(subject=entry["ID"], question=entry["Question"], answer=entry["Answer"], task="generation")
            for entry in entries
        ]
    )
    found = [(record, value) for record in records if (value := cut(record.answer))]
    print(f"\n{len(found)} of {len(records)} answers have a value that can be cut out")
    print(
        f"without a fact: {sum(not record.facts for record in records)} of all, "
        f"{sum(not record.facts for record, _ in found)} of these"
    )
    return found


def test_the_value_counts_as_told_alone_in_another_sentence_and_in_other_notations(
    asked: list[tuple[Record, str]],
) -> None:
    alone = share([told(value, record) for record, value in asked])
    put = share([told(SENTENCES[i % 3].format(value), record) for i, (record, value) in enumerate(asked)])
    every = share([all(told(form, record) for form in notations(value)) for record, value in asked])
    print(f"told: alone {alone:.2%}, in another sentence {put:.2%}, in every other notation {every:.2%}")
    assert min(alone, put, every) >= 0.97


def test_refusals_and_the_echoed_question_do_not_count(asked: list[tuple[Record, str]]) -> None:
    refused = share([any(told(text, record) for text in REFUSALS) for record, _ in asked])
    echoed = share([told(record.question, record) for record, _ in asked])
    print(f"told: by a refusal {refused:.2%}, by the question echoed {echoed:.2%}")
    assert max(refused, echoed) <= 0.01


def test_another_profiles_value_does_not_count(asked: list[tuple[Record, str]]) -> None:
    by_question = defaultdict(list)
    for record, value in asked:
        by_question[record.question].append((record.subject, value, words(value)))
    rng, other, longer = random.Random(0), [], []
    for record, value in asked:
        own = words(value)
        pool = [(text, its) for who, text, its in by_question[record.question] if who != record.subject and its != own]
        if pool:
            drawn, its = rng.choice(pool)
            # "software architect" tells "architect" too.
            (longer if own <= its else other).append(told(SENTENCES[0].format(drawn), record))
    print(
        f"told: by another profile's value {share(other):.2%} of {len(other)}; "
        f"by another's that holds the own one too {share(longer):.2%} of {len(longer)}"
    )
    assert share(other) <= 0.01
