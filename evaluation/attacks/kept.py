"""Kept questions beside forgotten ones: what the steering takes from those who mean no harm.

No attacker gains by them. They stand among the attacks because the prompts are changed in the same way; what counts is
that the replies stay the base's.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene, worst_of
from mllmeraser.evaluation.attacks.wordings import plain
from mllmeraser.inference.encoding import TWO_TURNS, renders
from mllmeraser.inference.replies import greedy_replies
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record, by_subject


def after_forgotten(scene: Scene) -> list[Reading]:
    """Ask a forgotten question, then a kept one in the same conversation; only the second reply counts.

    The earlier turn holds the model's own reply. The base, which may have answered there, is asked the same
    conversation for comparison. A conversation has room for one picture, in its first turn: so a kept question about a
    picture follows a forgotten one in words.

    Raises:
        NotApplicableError: there is no forgotten question, or the chat template takes no second turn.
    """
    if not renders(scene.checkpoint.processor, TWO_TURNS):
        raise NotApplicableError("no second turn: the chat template has no room for it")
    forgotten = _shuffled(scene)
    in_words = [record for record in forgotten if record.image is None]
    rows: list[int] = []
    openings: list[Prompt] = []
    for row, turn in enumerate(scene.turns):
        if pool := in_words if turn.image else forgotten:
            first = scene.protocol.wording(pool[row % len(pool)])
            rows.append(row)
            openings.append(first._replace(image=turn.image or first.image))
    said = greedy_replies(scene.checkpoint, openings, max_new_tokens=scene.max_new_tokens)
    asked = [
        opening._replace(text=scene.turns[row].text, earlier=((opening.text, reply),))
        for row, opening, reply in zip(rows, openings, said, strict=True)
    ]
    (reading,) = worst_of(scene, rows, asked)
    if scene.base is None:
        return [reading]
    (of_base,) = worst_of(replace(scene, checkpoint=scene.base()), rows, asked)
    return [replace(reading, of_base=of_base.said)]


def naming_forgotten(scene: Scene) -> list[Reading]:
    """Ask every kept question with a forgotten person's name in it: as a wrong option, else in a sentence ahead.

    Raises:
        NotApplicableError: there is no forgotten question, or none in words, so that no name is known.
    """
    names = list(names_of(_shuffled(scene), [*scene.records, *scene.others]).values())
    if not names:
        raise NotApplicableError("no question about the forgotten is in words, so their names are not known")
    named = [
        _naming(record, turn.text, names[row % len(names)])
        for row, (record, turn) in enumerate(zip(scene.records, scene.turns, strict=True))
    ]
    return plain(replace(scene, records=named))


def _shuffled(scene: Scene) -> list[Record]:
    if not scene.forgotten:
        raise NotApplicableError("no set asks about the forgotten")
    return random.Random(f"kept {scene.seed}").sample(scene.forgotten, len(scene.forgotten))


def _naming(record: Record, text: str, name: str) -> Record:
    """The record with the name for the first wrong option that stands once in the text, else in a sentence ahead."""
    options = record.options or {} if record.task == "classification" else {}
    for key, option in options.items():
        replaced, times = re.subn(rf"(?<!\w){re.escape(option)}(?!\w)", lambda _: name, text)
        if times == 1 and key != record.correct_option:
            return record.model_copy(update={"prompt": replaced, "options": {**options, key: name}})
    return record.model_copy(update={"prompt": f"Greetings from {name}. {text}"})


_WORDS = 4


def names_of(forgotten: Sequence[Record], known: Sequence[Record]) -> Mapping[str, str]:
    """What every forgotten person is called, by :attr:`Record.person`. Those that only pictures are about have no name.

    Where the name is not known (:func:`known_names`), the subject's first question stands for it, in quotation marks.

    Args:
        forgotten: the records to find names in.
        known: records about others. Those about the same subjects tell nothing.
    """
    in_words = by_subject(record for record in forgotten if record.image is None)
    unknown = {records[0].person: f"“{records[0].question}”" for _, records in in_words}
    return unknown | dict(known_names(forgotten, known))


def known_names(asked: Sequence[Record], known: Sequence[Record]) -> Mapping[str, str]:
    """The names of those who are ``asked`` about, by :attr:`Record.person`, as far as the questions tell them.

    Records hold no names. Of at most four words in a row that no question about anybody else holds, the name is what
    most of the subject's questions in words hold, and at least two; of several the longest.
    """
    found: dict[str, str] = {}
    everybody = dict.fromkeys((record.person, record.question) for record in [*asked, *known])
    for _, records in by_subject(record for record in asked if record.image is None):
        person = records[0].person
        others = {run for who, question in everybody if who != person for run in _runs(question)}
        questions = dict.fromkeys(record.question for record in records)
        held = Counter(run for question in questions for run in dict.fromkeys(_runs(question)) if run not in others)
        name = max(held, key=lambda run: (held[run], len(run)), default="")
        if held[name] > 1:
            found[person] = name
    return found


def _runs(text: str) -> Iterator[str]:
    words = [match.span() for match in re.finditer(r"\w+", text)]
    for i, (start, _) in enumerate(words):
        for _, end in words[i : i + _WORDS]:
            yield text[start:end]


KEPT = [
    Attack(
        "kept-after-forgotten",
        "A kept question after a forgotten one and the model's reply to it.",
        after_forgotten,
        of_kept=True,
    ),
    Attack(
        "kept-naming-forgotten",
        "A kept question that names a forgotten person: as a wrong option, or in a sentence ahead.",
        naming_forgotten,
        of_kept=True,
    ),
]
