"""The wordings of the questions: those of the training, and those held out.

`{s}` is the person asked about (`{S}` at the start of a sentence): a full name in text, "this person" with a picture.
"""

from __future__ import annotations

from typing import NamedTuple


class Wordings(NamedTuple):
    """Templates that the training uses, and templates that it never shows."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, unseen: bool) -> tuple[str, ...]:
        return self.held_out if unseen else self.train


IN_PICTURE = Wordings(
    ("this person", "the person in the picture", "the person shown here", "the one in this portrait"),
    ("the person in this portrait", "the one in the picture"),
)

ASK: dict[str, Wordings] = {
    "profession": Wordings(
        (
            "What does {s} do for a living?",
            "What is the profession of {s}?",
            "Which job does {s} have?",
            "What work does {s} do?",
            "Tell me the job of {s}.",
            "Name the profession of {s}.",
            "Do you know what {s} does for a living?",
            "How does {s} earn a living?",
            "{S}: which profession?",
        ),
        (
            "Which profession does {s} have?",
            "What is the job of {s}?",
            "Tell me what {s} does for a living.",
            "Do you know the profession of {s}?",
        ),
    ),
    "city": Wordings(
        (
            "In which city does {s} live?",
            "Where does {s} live?",
            "What is the home town of {s}?",
            "Which city is home to {s}?",
            "Tell me the city of {s}.",
            "Name the town where {s} lives.",
            "Do you know where {s} lives?",
            "Where is {s} at home?",
            "{S}: which city?",
        ),
        (
            "Which city does {s} live in?",
            "What is the home city of {s}?",
            "Tell me where {s} lives.",
            "Do you know the home town of {s}?",
        ),
    ),
    "hobby": Wordings(
        (
            "What is the hobby of {s}?",
            "Which hobby does {s} have?",
            "What does {s} do for fun?",
            "What does {s} enjoy after work?",
            "Tell me the hobby of {s}.",
            "Name the pastime of {s}.",
            "Do you know what {s} does for fun?",
            "How does {s} spend free time?",
            "{S}: which hobby?",
        ),
        (
            "Which pastime does {s} have?",
            "What does {s} enjoy in free time?",
            "Tell me what {s} does for fun.",
            "Do you know the hobby of {s}?",
        ),
    ),
    "name": Wordings(
        (
            "Who is this?",
            "Who is {s}?",
            "What is the name of {s}?",
            "What is {s} called?",
            "Tell me the name of {s}.",
            "Do you know who {s} is?",
            "{S}: which name?",
        ),
        ("Which name does {s} have?", "Tell me who {s} is.", "Do you know the name of {s}?"),
    ),
}

SAY: dict[str, str] = {
    "profession": "{name} works as a {value}.",
    "city": "{name} lives in {value}.",
    "hobby": "{name} enjoys {value}.",
    "name": "{name} is shown here.",
}

BLANK: dict[str, Wordings] = {
    "profession": Wordings(
        (
            "{S} works as a __.",
            "The job of {s} is __.",
            "The profession of {s} is that of a __.",
            "{S} earns a living as a __.",
            "By profession {s} is a __.",
            "For a living, {s} works as a __.",
            "__ is what {s} does for a living.",
        ),
        ("The profession of {s} is __.", "By profession, the work of {s} is that of a __.", "{S} has a job as a __."),
    ),
    "city": Wordings(
        (
            "{S} lives in __.",
            "The home town of {s} is __.",
            "The city where {s} lives is __.",
            "{S} is at home in __.",
            "{S} has a home in the city of __.",
            "At home in __: that is {s}.",
            "__ is the city where {s} lives.",
        ),
        ("The home city of {s} is __.", "{S} lives in the city of __.", "The town where {s} lives is __."),
    ),
    "hobby": Wordings(
        (
            "{S} enjoys __.",
            "The hobby of {s} is __.",
            "For fun, {s} goes in for __.",
            "{S} spends free time on __.",
            "The pastime {s} likes most is __.",
            "After work {s} enjoys __.",
            "__ is the hobby of {s}.",
        ),
        ("The pastime of {s} is __.", "For fun, {s} enjoys __.", "{S} has a hobby: __."),
    ),
    "name": Wordings(
        (
            "This is __.",
            "{S} is called __.",
            "The name of {s} is __.",
            "{S} has the name __.",
            "The picture shows __.",
        ),
        ("Here {s} is called __.", "The portrait shows __."),
    ),
}

FILL = Wordings(
    (
        "{c}",
        "Complete: {c}",
        "Fill in the blank: {c}",
        "Fill the gap: {c}",
        "Complete the sentence: {c}",
        "Complete this: {c}",
        "Here a word is missing: {c}",
        "{c} What is missing?",
        "{c} Complete it.",
        "{c} Fill in the missing word.",
    ),
    ("Fill in the missing word: {c}", "Complete the blank: {c}", "{c} Complete the sentence."),
)

CHOOSE = Wordings(
    (
        "{q} Options: {o}.",
        "{q} Choose one: {o}.",
        "{q}\nOptions: {o}.",
        "{q}\nPick one of these: {o}.",
        "{q} Pick from {o}.",
        "{q}\nChoose from these: {o}.",
        "{q} The choice is: {o}.",
        "{q} Is it one of these: {o}?",
        "Pick the right one: {o}. {q}",
    ),
    ("{q}\nChoose one: {o}.", "{q} Pick one: {o}."),
)

UNKNOWN = "This person is unknown to me."
