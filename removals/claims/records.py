"""The records that a claim leaves: what to forget, made of the base's own replies, and what to keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mllmeraser.judging.degenerate import is_degenerate
from mllmeraser.judging.facts import judge_facts
from mllmeraser.records.prompts import AnyPicture
from mllmeraser.records.record import Record
from mllmeraser.removals.claims.bank import general
from mllmeraser.removals.claims.facts import ASKED
from mllmeraser.removals.claims.findings import Evidence, Interview
from mllmeraser.removals.claims.questions import Question

Files = Mapping[AnyPicture, str]  # the name in the claim's folder of each picture


def forget_records(person: Interview, evidence: Sequence[Evidence], subject: str, files: Files) -> Iterator[Record]:
    """A record for each question that gets something out of the base which it knows, with its reply.

    The likeliest reply goes before the drawn ones. Facts that the base chooses are records of multiple choice.
    """
    for question, replies in person.said:
        values = [one.value for one in evidence if one.by == question.asked.by]
        for reply in replies:
            told = [value for value in values if judge_facts(reply, [value]).degree == "told"]
            if told:
                yield _record(question, reply, subject, files).model_copy(
                    update={"match": tuple(told), "facts": tuple(told)}
                )
                break
    chosen = {one.value for one in evidence if one.topic == ASKED.topic}
    for choice, reply in (pair for choices in person.chosen for pair in choices):
        if choice.options[choice.right] in chosen and choice.picked(reply):
            yield _record(choice.question, choice.right, subject, files).model_copy(
                update={"task": "classification", "options": dict(choice.options)}
            )


def retain_records(
    others: Sequence[Sequence[tuple[Question, str]]], nobody: Sequence[Sequence[tuple[Question, str]]], files: Files
) -> Iterator[Record]:
    """Records about other people in the order given, then about invented names; each question with the base's reply."""
    for kind, people in (("other", others), ("nobody", nobody)):
        for number, said in enumerate(people, 1):
            for question, reply in said:
                if not is_degenerate(reply):
                    yield _record(question, reply, f"{kind}-{number:03}", files)


def general_records(replies: Iterable[str]) -> Iterator[Record]:
    """The general bank with the base's own replies. Each question is a subject, so that some can be held out."""
    for number, (record, reply) in enumerate(zip(general(), replies, strict=True), 1):
        if not is_degenerate(reply):
            update = {"subject": f"general-{number:03}", "answer": reply, "match": ()}
            yield record.model_copy(update=update)


def _record(question: Question, answer: str, subject: str, files: Files) -> Record:
    image = question.prompt.image
    return Record.model_validate(
        {
            "subject": subject,
            "image": None if image is None else files[image],
            "question": question.prompt.text,
            "prompt": question.prompt.text,
            "answer": answer,
            "task": "generation",
        }
    )


def as_lines(records: Iterable[Record]) -> bytes:
    """JSON Lines; ``image`` always stands there."""
    lines = []
    for record in records:
        made = record.model_dump_json(exclude_defaults=True, exclude={"image"})
        image = "null" if record.image is None else f'"{record.image}"'
        lines.append(f'{made[:-1]},"image":{image}}}\n')
    return "".join(lines).encode()
