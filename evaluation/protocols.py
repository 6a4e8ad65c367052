"""Protocols: each says how a question is worded, which worked examples precede it, and how long a reply may be.

The literature calls three protocols "MLLMU-Bench". Each is a preset here, with its prompts to the letter:

* ``official`` (arXiv 2410.22108): raw ``USER: … ASSISTANT:`` strings. Multiple choice is preceded by all such questions
  of one profile with their answers, cloze by those of two. The original draws the profiles without a seed; here they
  follow the seed.
* ``mmunlearner`` (arXiv 2502.11051): zero-shot, with the same raw strings for LLaVA. The other families use their chat
  template, except that multiple choice and open questions without a picture stay raw.
* ``mllmeraser`` (arXiv 2510.04217), the default: zero-shot, without the word "accurately", always in the processor's
  chat template, as in every other stage of this tool. (The public script has a raw string for LLaVA. It differs from
  LLaVA's chat template in one line feed before ``ASSISTANT:``.)

``umu`` is UMU-Bench's (arXiv 2025, NeurIPS datasets and benchmarks). Every protocol uses a record's own ``prompt`` word
for word, in the chat template and without examples, and reads letters with both parsers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mllmeraser.errors import InputError
from mllmeraser.records.prompts import AnyPicture, Prompt
from mllmeraser.records.record import Record, Task, by_subject, options_listed, protocol_wording, subjects
from mllmeraser.records.same import normal

MAX_NEW_TOKENS = 50  # MLLMU-Bench's limit (arXiv 2410.22108)


@dataclass(frozen=True)
class Question:
    """A record as it is asked: its index in the set, the text of the user's turn, and the worked examples before it."""

    index: int
    record: Record
    turn: str
    examples: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """How records become prompts.

    * ``words``: the text of the user's turn.
    * ``raw``: the text before and after it where a family gets no chat template; null where it gets one.
    * ``examples``: how many profiles' questions are shown as worked examples, by task.
    * ``limits``: the longest reply in tokens, by task.
    """

    name: str
    words: Callable[[Record], str]
    raw: Callable[[Record, str], tuple[str, str] | None]
    examples: Mapping[Task, int] = field(default_factory=dict)
    limits: Mapping[Task, int] = field(default_factory=dict)

    def turn(self, record: Record) -> str:
        """The text of the user's turn: the record's own prompt, else this protocol's wording."""
        return record.prompt or self.words(record)

    def wording(self, record: Record) -> Prompt:
        """The record's prompt for the model's own chat template, without worked examples."""
        return Prompt(self.turn(record), record.image)

    def limit(self, record: Record) -> int:
        """The longest reply, in tokens."""
        return self.limits.get(record.task, MAX_NEW_TOKENS)

    def questions(self, records: Sequence[Record], pool: Sequence[Record] = (), seed: str = "0") -> list[Question]:
        """The records of a set as they are asked, in order. Records of a profile drawn as an example are not asked.

        Args:
            pool: the records that examples are taken from. Profiles are drawn among the subjects of ``records``; one
                that the pool does not hold (MLLMU-Bench's celebrities) gives no example.
            seed: draws the profiles.

        Raises:
            InputError: the protocol shows examples, and the pool is empty.
        """
        shown: dict[Task, list[str]] = {}
        known = dict(by_subject(pool))
        for task, count in self.examples.items():
            asked = [record for record in records if record.task == task and record.prompt is None]
            if asked and not pool:
                raise InputError(f"--protocol {self.name} shows worked examples: give --examples MLLMU-Bench/Full_Set")
            names = subjects(asked)
            drawn = random.Random(f"examples {task} {seed}").sample(names, min(count, len(names)))
            shown[task] = [name for name in known if normal(name) in set(map(normal, drawn))]
        return [
            Question(index, record, self.turn(record), self._examples(record, shown, known))
            for index, record in enumerate(records)
            if record.prompt is not None or record.person not in map(normal, shown.get(record.task, ()))
        ]

    def _examples(
        self, record: Record, shown: Mapping[Task, Sequence[str]], known: Mapping[str, Sequence[Record]]
    ) -> tuple[Record, ...]:
        if record.prompt is not None:
            return ()
        return tuple(
            other
            for name in shown.get(record.task, ())
            for other in known[name]
            if (other.task, other.modality) == (record.task, record.modality)
        )

    def prompt(self, question: Question, family: str) -> Prompt:
        """The whole prompt for a model of this family."""
        record = question.record
        around = None if record.prompt is not None else self.raw(record, family)
        if around is None:
            return self.wording(record)
        pictures: tuple[AnyPicture, ...] = tuple(shown.image for shown in question.examples if shown.image is not None)
        text = "".join(map(_worked, question.examples)) + around[0] + question.turn + around[1]
        return Prompt(text, record.image, raw=True, examples=pictures)


def _accurate_wording(record: Record) -> str:
    """MLLMU-Bench's sentences: they ask for an "accurate" answer to an open question about a picture."""
    how = "in one sentence accurately in ENGLISH" if record.image else "in one sentence in ENGLISH"
    return protocol_wording(record, how)


def _umu_wording(record: Record) -> str:
    """UMU-Bench's sentences: they list the options without letters."""
    if record.task == "classification":
        return f"{record.question}\nSelect answer in {list((record.options or {}).values())}"
    if record.task == "cloze":
        return f"{record.question}\nPlease **ONLY** provide the correct answer without any explanation"
    return _accurate_wording(record)


def _worked(record: Record) -> str:
    """A worked example in the form of ``official``."""
    if record.task == "classification":
        head = "USER: <image>\n" if record.image else "USER:\n"
        return f"{head}Question: {record.question}\n{options_listed(record)}\nCorrect Answer: {record.correct_option}\n"
    head = "USER:<image>\n" if record.image else "USER:\n"
    return f"{head}{protocol_wording(record)}\nCorrect Answer: {record.answer}\n"


def _never_raw(record: Record, family: str) -> None:
    return None


def _always_raw(record: Record, family: str) -> tuple[str, str]:
    """The frame of ``official``, with the original's line feeds and trailing blank."""
    if record.image is not None:
        return "USER: <image>\n", "\nASSISTANT: " if record.task == "generation" else "\nASSISTANT:"
    return "USER: " if record.task == "generation" else "USER:\n", "\nASSISTANT:"


def _mmunlearner_raw(record: Record, family: str) -> tuple[str, str] | None:
    if family.startswith("llava") or (record.image is None and record.task != "cloze"):
        return _always_raw(record, family)
    return None


def _umu_raw(record: Record, family: str) -> tuple[str, str] | None:
    if not family.startswith("llava"):
        return None
    head, tail = _always_raw(record, family)
    return "USER: " if head == "USER:\n" and record.task == "cloze" else head, tail


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("mllmeraser", protocol_wording, _never_raw),
        Protocol("mmunlearner", _accurate_wording, _mmunlearner_raw),
        Protocol("official", _accurate_wording, _always_raw, examples={"classification": 1, "cloze": 2}),
        Protocol("umu", _umu_wording, _umu_raw, limits={"generation": 200}),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        InputError: no protocol has this name; the message lists them.
    """
    if name not in PROTOCOLS:
        raise InputError(f"--protocol {name}: not one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
