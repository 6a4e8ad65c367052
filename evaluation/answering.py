"""Asks one model questions, a batch at a time: its free replies, likelihoods of given replies, and gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mllmeraser.console import track
from mllmeraser.evaluation.items import Reply, candidates, with_likelihoods
from mllmeraser.evaluation.protocols import PROTOCOLS, Protocol, Question
from mllmeraser.evaluation.results import TASKS
from mllmeraser.inference.encoding import batches
from mllmeraser.inference.gates import read_gates
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.processes import processes
from mllmeraser.inference.replies import greedy_reply_ids, reply_likelihoods
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record


def answer(
    checkpoint: Checkpoint,
    records: Sequence[Record],
    protocol: Protocol = PROTOCOLS["mllmeraser"],
    *,
    max_new_tokens: int | None = None,
    progress: str | None = None,
) -> list[Reply]:
    """The replies of one model, in the order of the records; the protocol must be one without worked examples."""
    questions = protocol.questions(records)
    prompts = [protocol.prompt(question, checkpoint.model_type) for question in questions]
    limits = [max_new_tokens or protocol.limit(record) for record in records]
    said: dict[int, Reply] = {}
    for rows, replies in answer_by_batch(checkpoint, questions, prompts, limits, progress=progress):
        said |= zip(rows, replies, strict=True)
    return [said[i] for i in range(len(records))]


def answer_by_batch(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    prompts: Sequence[Prompt],
    limits: Sequence[int],
    *,
    progress: str | None = None,
) -> Iterator[tuple[list[int], list[Reply]]]:
    """The replies of one model, batch by batch: the indices of the questions, and the replies to them.

    Questions whose prompts are about equally long share a batch.
    """
    plan = _plan(checkpoint, questions, prompts)
    for rows in track(plan, progress) if progress else plan:
        turns = [prompts[i] for i in rows]
        said = greedy_reply_ids(checkpoint, turns, max_new_tokens=max(limits[i] for i in rows))
        said = [ids[: limits[i]] for i, ids in zip(rows, said, strict=True)]
        texts = checkpoint.processor.tokenizer.batch_decode(said, skip_special_tokens=True)
        asked = [candidates(questions[i].record, questions[i].turn) for i in rows]
        flat = [[reply for replies in weighed.values() for reply in replies] for weighed in asked]
        found = reply_likelihoods(checkpoint, turns, flat)
        gates = read_gates(checkpoint, turns)
        replies = []
        for i, ids, text, weighed, likely, gate in zip(rows, said, texts, asked, found, gates, strict=True):
            rest = iter(likely)
            by_kind = {what: tuple(next(rest) for _ in strings) for what, strings in weighed.items()}
            reply = Reply(text.strip(), tuple(ids.tolist()), gates=gate)
            replies.append(with_likelihoods(questions[i].record, reply, by_kind))
        yield rows, replies


def _plan(checkpoint: Checkpoint, questions: Sequence[Question], prompts: Sequence[Prompt]) -> list[list[int]]:
    """Indices by batch. A batch takes as long as its longest reply, so it holds one task and prompts of similar length.

    It is large enough to be shared out among all processes.
    """
    plan = []
    for task in TASKS:
        rows = [i for i, question in enumerate(questions) if question.record.task == task]
        found = batches(checkpoint, [prompts[i] for i in rows], checkpoint.batch_size * processes().count)
        plan += [[rows[n] for n in batch] for batch in found]
    return plan
