"""Multiple choice: which reply is asked for, which option is likeliest, which one a free reply names."""

from __future__ import annotations

import math

import pytest

from mllmeraser.judging.choices import (
    expected_replies,
    first_alphanumeric,
    first_character,
    likeliest,
    likeliest_per_byte,
    lists_letters,
    named_option,
)

OPTIONS = {"A": "York", "B": "New York", "C": "Dublin", "D": "Graz"}


def test_an_option_is_named_ahead_of_a_genitive_and_in_scripts_without_spaces() -> None:
    assert named_option("She is Dublin's mayor.", OPTIONS, by_letter=False) == "C"
    assert named_option("She loves New York’s bakers.", OPTIONS, by_letter=False) == "B"
    cities = {"A": "柏林", "B": "都柏林", "C": "北京"}
    assert named_option("她住在都柏林。", cities, by_letter=False) == "B"
    assert named_option("她住在柏林。", cities, by_letter=False) == "A"
    assert named_option("她住在巴黎。", cities, by_letter=False) is None


@pytest.mark.parametrize("form", ["{}: {}", "{}. {}", "{}) {}", "({}) {}", "{} - {}"])
def test_a_prompt_that_lists_letters_is_answered_by_letter(form: str) -> None:
    prompt = "Where?\n" + "\n".join(form.format(*option) for option in OPTIONS.items())
    assert lists_letters(prompt, OPTIONS)
    assert expected_replies(prompt, OPTIONS) == {key: key for key in OPTIONS}


@pytest.mark.parametrize("prompt", ["Where? York, New York, Dublin, Graz", "A: York\nB: New York\nC: Dublin", ""])
def test_any_other_prompt_is_answered_by_text(prompt: str) -> None:
    assert expected_replies(prompt, OPTIONS) == OPTIONS


def test_the_likeliest_option_must_stand_alone() -> None:
    assert likeliest([-3.0, -1.0, -2.0]) == 1
    assert likeliest([-1.0, -1.0]) is None
    assert likeliest([-1.0, math.nan]) is None
    assert likeliest([]) is None


def test_length_takes_the_head_start_of_short_options_away() -> None:
    assert likeliest([-2.0, -3.0]) == 0
    assert likeliest_per_byte([-2.0, -3.0], ["ab", "abcdef"]) == 1  # −1 a byte against −½


@pytest.mark.parametrize(
    ("reply", "by_letter", "expected"),
    [
        ("C", True, "C"),
        ("(C)", True, "C"),
        ("C: Dublin", True, "C"),
        ("C.", True, "C"),
        ("As an AI, I like it.", True, None),
        ("A penguin", True, None),
        ("Dublin", True, "C"),
        ("E", True, None),
        ("C", False, None),
        ("It is Dublin.", False, "C"),
        ("New York", False, "B"),
        ("York", False, "A"),
        ("York, New York, Dublin, Graz", False, None),
        ("", True, None),
    ],
)
def test_a_free_reply_names_one_option_or_none(reply: str, by_letter: bool, expected: str | None) -> None:
    assert named_option(reply, OPTIONS, by_letter) == expected


def test_the_two_published_letter_parsers() -> None:
    assert first_character("As an AI", "ABCD") == "A"
    assert first_character("(A)", "ABCD") is None
    assert first_alphanumeric("(A)") == "A"
    assert first_alphanumeric("...") is None
    assert first_character("", "ABCD") is None
