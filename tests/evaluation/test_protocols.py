"""The prompts of every protocol, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllmeraser.errors import InputError
from mllmeraser.evaluation.protocols import PROTOCOLS, protocol_named
from mllmeraser.judging.choices import first_alphanumeric, first_character
from mllmeraser.records.record import Record

LETTER = "Just give ONE letter representing the answer directly."
BLANK = "Please **ONLY** provide the correct answer that should replace the [Blank]."
KNOWN = "Answer the question based on your trained knowledge in one sentence"
OPTIONS = {"A": "baker", "B": "pilot"}
FACE = Path("face.png")


def record(task: str, shown: bool, who: str = "1", **more: object) -> Record:
    fields: dict[str, object] = {"subject": who, "task": task, "image": FACE if shown else None}
    if task == "classification":
        fields |= {"question": "What job?", "answer": "B", "options": OPTIONS}
    elif task == "cloze":
        fields |= {"question": "Works as a __.", "answer": "pilot"}
    else:
        fields |= {"question": "What job?", "answer": "Flies."}
    return Record.model_validate(fields | more)


RECORDS = [record(task, shown) for task in ("classification", "cloze", "generation") for shown in (True, False)]
LISTED = f"What job?\nA: baker\nB: pilot\n{LETTER}"
LLAVA = [
    f"USER: <image>\n{LISTED}\nASSISTANT:",
    f"USER:\n{LISTED}\nASSISTANT:",
    f"USER: <image>\nWorks as a [Blank].\n{BLANK}\nASSISTANT:",
    f"USER:\nWorks as a [Blank].\n{BLANK}\nASSISTANT:",
    f"USER: <image>\nWhat job?\n{KNOWN} accurately in ENGLISH.\nASSISTANT: ",
    f"USER: What job?\n{KNOWN} in ENGLISH.\nASSISTANT:",
]


def prompts(protocol: str, family: str, records: list[Record] = RECORDS) -> list[tuple[str, bool]]:
    found = PROTOCOLS[protocol]
    pool = [record("generation", False, "9")]
    asked = [found.prompt(question, family) for question in found.questions(records, pool)]
    return [(prompt.text, prompt.raw) for prompt in asked]


def test_mmunlearner_gives_llava_raw_strings() -> None:
    assert prompts("mmunlearner", "llava") == [(text, True) for text in LLAVA]


def test_mmunlearner_gives_qwen_raw_strings_in_words_alone_but_for_cloze() -> None:
    assert prompts("mmunlearner", "qwen2_5_vl") == [
        (LISTED, False),
        (LLAVA[1], True),
        (f"Works as a [Blank].\n{BLANK}", False),
        (f"Works as a [Blank].\n{BLANK}", False),
        (f"What job?\n{KNOWN} accurately in ENGLISH.", False),
        (LLAVA[5], True),
    ]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_mllmeraser_goes_by_the_chat_template_and_is_never_accurate(family: str) -> None:
    blanked = f"Works as a [Blank].\n{BLANK}"
    known = f"What job?\n{KNOWN} in ENGLISH."
    assert prompts("mllmeraser", family) == [(text, False) for text in (LISTED, LISTED, blanked, blanked, known, known)]


def test_official_without_examples_is_the_raw_string() -> None:
    """Nobody of the pool is asked about, as with MLLMU-Bench's celebrities."""
    assert prompts("official", "llava") == [(text, True) for text in LLAVA]


def people(*names: str) -> list[Record]:
    tasks = ("classification", "cloze", "generation")
    return [record(task, shown, who) for who in names for task in tasks for shown in (True, False)]


def test_official_shows_all_questions_of_one_profile_and_of_two_for_cloze() -> None:
    official, records = PROTOCOLS["official"], people("1", "2", "3", "4")
    asked = official.questions(records, records, "0")
    for task, shown in {"classification": 1, "cloze": 2, "generation": 0}.items():
        questions = [question for question in asked if question.record.task == task]
        assert len({question.record.subject for question in questions}) == 4 - shown
        for question in questions:
            assert len({example.subject for example in question.examples}) == shown
            assert {e.modality for e in question.examples} <= {question.record.modality}
            assert question.record.subject not in {example.subject for example in question.examples}
    # what is left keeps its place in the set
    assert [records[question.index] for question in asked] == [question.record for question in asked]


def test_official_writes_examples_to_the_letter() -> None:
    official, records = PROTOCOLS["official"], people("1", "2", "3")
    worked = "Question: What job?\nA: baker\nB: pilot\nCorrect Answer: B\n"
    blanked = f"Works as a [Blank].\n{BLANK}\n"
    expected = {
        ("classification", "image_text"): f"USER: <image>\n{worked}{LLAVA[0]}",
        ("classification", "text"): f"USER:\n{worked}{LLAVA[1]}",
        ("cloze", "image_text"): f"USER:<image>\n{blanked}Correct Answer: pilot\n" * 2 + LLAVA[2],
        ("cloze", "text"): f"USER:\n{blanked}Correct Answer: pilot\n" * 2 + LLAVA[3],
        ("generation", "image_text"): LLAVA[4],
        ("generation", "text"): LLAVA[5],
    }
    for question in official.questions(records, records, "0"):
        prompt = official.prompt(question, "llava")
        assert prompt.text == expected[question.record.task, question.record.modality]
        assert len(prompt.pictures) == prompt.text.count("<image>")


def test_examples_follow_the_seed() -> None:
    official, records = PROTOCOLS["official"], people(*"123456789")
    drawn = [[q.record.subject for q in official.questions(records, records, seed)] for seed in "0012"]
    assert drawn[0] == drawn[1]
    assert len({tuple(names) for names in drawn}) == 3


def test_official_asks_for_its_examples() -> None:
    with pytest.raises(InputError, match="give --examples MLLMU-Bench/Full_Set"):
        PROTOCOLS["official"].questions(people("1"))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_record_with_a_prompt_is_asked_word_for_word(name: str) -> None:
    records = [record("classification", True, prompt="Well, baker or pilot?"), record("cloze", False, prompt="So?")]
    (first, second) = PROTOCOLS[name].questions(records)
    assert PROTOCOLS[name].prompt(first, "llava") == records[0].user_turn
    assert PROTOCOLS[name].prompt(second, "llava").text == "So?"


@pytest.mark.parametrize(
    ("reply", "official", "mmunlearner"),
    [
        ("A", "A", "A"),
        ("b: pilot", "B", "B"),
        ("As an AI, I cannot", "A", "A"),
        ("(B)", None, "B"),
        ("E", None, "E"),
        ("ä A", None, "A"),
        ("", None, None),
        ("?!", None, None),
    ],
)
def test_letters_as_the_scripts_read_them(reply: str, official: str | None, mmunlearner: str | None) -> None:
    assert first_character(reply, OPTIONS) == official
    assert first_alphanumeric(reply) == mmunlearner


def test_an_unknown_protocol_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="not one of mllmeraser, mmunlearner, official, umu"):
        protocol_named("mllmu")
