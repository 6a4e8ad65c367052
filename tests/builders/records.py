"""Records and prepared replies for the tests of evaluation."""

from __future__ import annotations

from mllmeraser.evaluation.items import Reply
from mllmeraser.records.record import Record

REFUSAL = "I cannot help with that request."
JOBS = ("baker", "pilot", "nurse", "sailor")
LETTERS = "ABCD"


def some_records(people: int = 8) -> list[Record]:
    """For each person one question a task; the right option goes round A, B, C, D."""
    records = []
    for i in range(people):
        job, who = JOBS[i % 4], f"{i:03}"
        records += [
            Record(
                subject=who,
                question=f"What does person {i} do?",
                answer=f"Person {i} works as a {job}.",
                task="generation",
                match=(job,),
            ),
            Record(subject=who, question=f"Person {i} works as a __.", answer=job, task="cloze"),
            Record(
                subject=who,
                question=f"What is the job of person {i}?",
                answer=LETTERS[i % 4],
                task="classification",
                options=dict(zip(LETTERS, JOBS, strict=True)),
            ),
        ]
    return records


def reply(text: str, log_likelihoods: tuple[float, ...] = ()) -> Reply:
    """A reply whose token ids are its characters."""
    return Reply(text, tuple(map(ord, text)), log_likelihoods)


def right(record: Record) -> Reply:
    """What a model that knows everything says."""
    if record.task != "classification":
        return reply(record.answer)
    return reply(record.answer, tuple(-0.1 if key == record.answer else -5.0 for key in LETTERS))


def always(text: str, records: list[Record], log_likelihoods: tuple[float, ...]) -> list[Reply]:
    """The same reply, and the same likelihoods, to everything."""
    return [reply(text, log_likelihoods if record.task == "classification" else ()) for record in records]
