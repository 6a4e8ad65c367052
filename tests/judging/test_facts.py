"""When a reply tells a fact: any order, any notation, any script; told, in part, not, or nobody can know."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmeraser.errors import InputError
from mllmeraser.judging.answers import can_judge, judge_named, verdict
from mllmeraser.judging.facts import TOLD, judge_facts, parts
from mllmeraser.judging.quantities import dates, in_digits, lengths, numbers
from mllmeraser.judging.words import plain
from mllmeraser.records.record import Record


@pytest.mark.parametrize(
    ("fact", "reply"),
    [
        # words: order, case, accents, hyphens, a genitive, an ending, an abbreviation
        ("Riga, Latvia", "She was born in Riga, Latvia."),
        ("Riga, Latvia", "LATVIA'S CAPITAL RIGA"),
        ("Dublin", "Dublin's mayor"),
        ("Dublin's", "in Dublin"),
        ("Dublin", "the Dubliners live in ‘Dublin’"),
        ("São Paulo", "sao paulo"),
        ("Malmo", "Malmö"),
        ("Tromso", "Tromsø"),
        ("deep-sea diving", "Deep sea diving!"),
        ("collecting vintage postcards", "She collects a vintage postcard now and then."),
        ("Côte d’Ivoire", "in Cote d'Ivoire"),
        ("Italie", "elle vit en l'Italie"),
        ("Portland, USA", "Portland in the United States"),
        ("London, United Kingdom", "London, UK"),
        ("Mount Kilimanjaro", "Mt. Kilimanjaro"),
        ("female", "The person is a woman."),
        ("The Who", "the who"),
        ("Will Smith", "It is Will Smith."),
        ("In Graz.", "Graz"),
        # numbers
        ("$75,000", "75k a year"),
        ("$75,000", "75.000 Euro"),
        ("$75,000", "75 000"),
        ("$75,000", "USD 75,000.00"),
        ("$75,000", "seventy-five thousand dollars"),
        ("four languages", "She speaks 4 languages."),
        ("over 30 parks", "thirty parks"),
        # lengths
        ("5 feet 6 inches", "5'6\""),
        ("5'6\"", "five foot six"),
        ("5'11''", "5′11″"),
        ("5 feet 6 inches", "168 cm"),
        ("5 feet 6 inches", "66 inches"),
        ("168 cm", "1.68 m"),
        ("168 cm", "1,68 Meter"),
        ("168 cm", "1m68"),
        ("168 cm tall", "168"),
        ("6 feet", "183 centimetres"),
        # dates
        ("May 4, 1988", "4 May 1988"),
        ("May 4, 1988", "the 4th of May, 1988"),
        ("May 4, 1988", "1988-05-04"),
        ("May 4, 1988", "05/04/1988"),
        ("May 4, 1988", "04.05.1988"),
        ("May 4, 1988", "4-MAY-1988"),
        ("May 4, 1988", "am 4. Mai 1988"),
        ("May 4, 1988", "le 4 mai 1988"),
        ("May 4, 1988", "4 de mayo de 1988"),
        ("May 4, 1988", "1988年5月4日"),
        ("May 4, 1988", "May 4th, '88"),
        ("May 4, 1988", "04/05/88"),
        # scripts without spaces, and with endings on the word
        ("都柏林", "她住在都柏林。"),
        ("大工", "彼の職業は大工です。"),
        ("食べる", "りんごを食べた"),
        ("ดับลิน", "เขาอาศัยอยู่ในดับลิน"),
        ("더블린", "그는 더블린에 삽니다."),
        ("मुंबई", "वह मुंबई में रहती है"),
        ("Дублин", "город Дублин"),
        ("القاهرة", "تعيش في القَاهِرة"),
    ],
)
def test_told(fact: str, reply: str) -> None:
    assert judge_facts(reply, [fact]) == ("told", 1.0)


@pytest.mark.parametrize(
    ("fact", "reply"),
    [
        ("Riga, Latvia", "I cannot help with that request."),
        ("man", "A German baker"),
        ("Martin", "Martins"),
        ("$75,000", "$7,500"),
        ("$75,000", "75"),
        ("6 feet", "5 feet 6 inches"),
        ("168 cm", "5'5\""),
        ("May 4, 1988", "May 5, 1989"),
        ("May 4, 1988", "You may ask four times."),
        ("都柏林", "她住在北京。"),
        ("더블린", "그는 서울에 삽니다."),
        ("คน", "เขา"),
        ("がき", "かき"),
    ],
)
def test_not_told(fact: str, reply: str) -> None:
    assert judge_facts(reply, [fact]) == ("not", 0.0)


@pytest.mark.parametrize(
    ("fact", "reply", "share"),
    [
        ("Riga, Latvia", "Latvia, I think", 1 / 2),
        ("Will Smith", "John Smith", 1 / 2),
        ("May 4, 1988", "in 1988", 1 / 3),
        ("May 4, 1988", "in May 1988", 2 / 3),
        ("May 4, 1988", "May 4, 1978", 2 / 3),
        ("four languages", "two languages", 1 / 2),
        ("small red brick town house", "a small house", 2 / 5),
    ],
)
def test_told_in_part(fact: str, reply: str, share: float) -> None:
    assert judge_facts(reply, [fact]) == ("partly", pytest.approx(share))


def test_of_many_parts_one_may_be_missing() -> None:
    fact = "small old red brick town house"
    assert judge_facts("a small old red brick house", [fact]) == ("told", pytest.approx(5 / 6))
    assert judge_facts("a small red brick house", [fact]).degree == "partly"
    assert judge_facts("a small red brick house", ["small red brick town house"]).degree == "partly"


def test_a_word_said_twice_is_one_part() -> None:
    assert judge_facts("a nurse", ["nurse who works as a pediatric nurse"]) == ("partly", 0.5)


@pytest.mark.parametrize("fact", ["yes", "No.", "B", "true", "to be", "はい", "是", "", "?!"])
def test_what_any_reply_may_hold_cannot_be_judged(fact: str) -> None:
    assert judge_facts(f"I say {fact}", [fact]) == ("unknowable", 0.0)
    assert not parts(fact)


def test_the_fact_told_best_counts_and_no_fact_is_unknowable() -> None:
    assert judge_facts("a cat called Rio", ["dog named Rio", "Rio"]) == ("told", 1.0)
    assert judge_facts("a cat called Rio", ["yes", "dog named Rio"]) == ("partly", 0.5)
    assert judge_facts("anything", []) == ("unknowable", 0.0)


def test_the_judges_differ_on_a_sentence_and_agree_on_options() -> None:
    said, answer = "She was born in Riga, Latvia.", "This person was born in Riga, Latvia."
    record = Record(subject="1", question="Where was this person born?", answer=answer, task="generation")
    assert verdict(said, record, "facts") == ("told", 1.0)
    assert verdict(said, record, "string") == ("not", 0.0)
    options = {"A": "Yes", "B": "No"}
    choice = Record(subject="1", question="Is she tall?", answer="A", task="classification", options=options)
    assert verdict("Yes", choice, "facts") == verdict("Yes", choice, "string") == ("told", 1.0)
    assert can_judge(choice)
    unclear = Record(subject="1", question="Is she tall?", answer="Yes.", task="generation")
    assert not can_judge(unclear) and can_judge(unclear, "string")


def test_an_unknown_judge_is_one_line() -> None:
    assert judge_named("string") == "string"
    with pytest.raises(InputError, match="--judge words: not one of facts, string"):
        judge_named("words")


SAID = "As far as I know, it is {} – or so they say."
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=40)


@given(VALUES, VALUES)
def test_a_verdict_never_raises_and_fits_its_share(fact: str, reply: str) -> None:
    degree, share = judge_facts(reply, [fact])
    assert 0 <= share <= 1
    assert (degree == "told") == (share >= TOLD)
    assert (degree == "unknowable") == (not parts(fact))


NAMES = st.lists(st.from_regex(r"[B-Z][a-zäéøß]{3,9}", fullmatch=True), min_size=1, max_size=4)


@given(NAMES, st.randoms())
def test_names_are_told_in_any_order_case_and_without_accents(names: list[str], rng: object) -> None:
    fact = ", ".join(names)
    for form in (fact, fact.upper(), plain(fact), " and ".join(reversed(names)), f"{fact}'s"):
        assert judge_facts(SAID.format(form), [fact]).degree in ("told", "unknowable"), form


@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2025, 12, 31)))
def test_a_date_is_told_in_every_notation_and_by_no_other_date(date: datetime.date) -> None:
    fact = f"{date:%B} {date.day}, {date.year}"
    for form in ("%d.%m.%Y", "%Y-%m-%d", "%m/%d/%Y", "%d/%m/%Y", "%d %B %Y", "%b %d, %Y", "%A, the %dth of %B %Y"):
        assert judge_facts(SAID.format(date.strftime(form)), [fact]) == ("told", 1.0), form
    other = date + datetime.timedelta(days=400)
    assert judge_facts(f"{other:%B} {other.day}, {other.year}", [fact]).degree != "told"


@given(st.integers(100, 250))
def test_a_height_is_told_in_every_notation_and_by_no_other_height(height: int) -> None:
    for form in (
        f"{height}cm",
        f"{height / 100:.2f} m",
        f"{height / 100:.2f}m".replace(".", ","),
        f"{height} centimeters",
    ):
        assert judge_facts(SAID.format(form), [f"{height} cm"]) == ("told", 1.0), form
    assert judge_facts(f"{height + 1} cm", [f"{height} cm"]).degree == "not"


@given(st.integers(10, 999))
def test_an_amount_is_told_in_every_notation_and_by_no_other_amount(thousands: int) -> None:
    for form in ("{},000", "{}.000", "{} 000", "{}'000", "{}000", "{}k", "{} thousand", "{},000.00"):
        assert judge_facts(SAID.format(form.format(thousands)), [f"${thousands},000"]) == ("told", 1.0), form
    assert judge_facts(f"{thousands + 1},000", [f"${thousands},000"]).degree == "not"


def test_quantities_and_their_readings() -> None:
    assert in_digits("one of a hundred and five, not twenty two thousand") == "one of 105, not 22000"
    assert in_digits("hundreds of thousand islands") == "hundreds of thousand islands"
    assert [sorted(map(str, values)) for values, _ in numbers("1.500, 2,5 and 3")] == [
        ["1.500", "1500.0"],
        ["2.5"],
        ["3"],
    ]
    assert {date.parts for date, _ in dates("05/04/1988")} == {(1988, 4, 5), (1988, 5, 4)}
    assert [length for length, _ in lengths("5 feet 6 inches, 5'6\", 5 ft 6, 66 inches, 168 cm, 1.68 m")] == [168] * 6
    assert dates("99/99/1988") == dates("13/13/1988") == [] == lengths("6 people")
