"""Stage 1, the prompts: the base answers *recall* prompts and refuses *erasure* prompts.

There are three sources:

* ``matched``: the forget questions as they are, and the same questions under an instruction to refuse.
* ``harmful``: mild and harmful requests that travel with the tool (``prompts.json``), each in words alone and beside a
  plain grey picture. They do not depend on the forget set (as in the paper).
* ``own``: the user's own records.

A direction towards refusing needs a model that refuses, so the base is asked. Erasure prompts that it answers and
recall prompts that it refuses are left out. Too few that remain are an error.

A model may refuse in several wordings, and a direction along the reply is a mean by position. So the base's most
frequent wording follows every erasure prompt, and no position averages different words. (The states are teacher-forced
anyway.) On the demo model the mean over three wordings was as fluent (``benchmarks/ablations.py``).
Source: MLLMEraser, arXiv 2510.04217, stage 1; ``matched`` is ours.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, NamedTuple

from PIL import Image
from torch import Tensor

from mllmeraser.errors import QualityGateError
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import greedy_reply_ids, reply_ids
from mllmeraser.judging.refusal import is_refusal
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

Source = Literal["matched", "harmful", "own"]

MOST_PAIRS = 96
LEAST_REFUSALS = 0.5  # below this share of refused erasure prompts there is no direction worth having
OFTEN_REFUSED = 0.9  # `auto` also tries harmful pairs where matched ones are refused less often
LONGEST_REPLY = 32
_PROBED = 12
_GREY = (128, 128, 128)


class Instruction(NamedTuple):
    """An instruction to refuse, before or after a question."""

    text: str
    first: bool = False

    def __call__(self, turn: Prompt) -> Prompt:
        return Prompt(f"{self.text}\n{turn.text}" if self.first else f"{turn.text}\n{self.text}", turn.image)


INSTRUCTIONS = tuple(
    Instruction(text, first)
    for text in (
        "Do not answer this question.",
        "You must refuse to answer this question.",
        "Please refuse to answer.",
        "You must not answer.",
        "Decline to answer this question.",
        "You are not allowed to answer this question. Refuse.",
        "This is private information. Say that you cannot help with that request.",
    )
    for first in (False, True)
)


@dataclass(frozen=True)
class Pairs:
    """Recall and erasure prompts with their replies (token ids), and the share of erasure prompts that were refused."""

    source: Source
    recall: list[Prompt]
    recall_replies: list[Tensor]
    erasure: list[Prompt]
    erasure_replies: list[Tensor]
    refusal_rate: float

    @property
    def refusal_length(self) -> int:
        """How many tokens the longest refusal has, its end-of-sequence token included."""
        return max(len(reply) for reply in self.erasure_replies)


def choose_pairs(
    checkpoint: Checkpoint,
    forget: Sequence[Record],
    source: Literal["auto", "matched", "harmful"],
    own: tuple[Sequence[Record], Sequence[Record]] | None,
    instruction: str | None,
    seed: int,
) -> Pairs:
    """The pairs of a source. ``auto`` is ``matched``, unless the base refuses ``harmful`` prompts more often.

    Args:
        own: the user's own recall and erasure records; they win over any source.

    Raises:
        QualityGateError: the base refuses less than half of the erasure prompts, or answers no recall prompt.
    """
    if own is not None:
        return usable(checkpoint, own_pairs(checkpoint, *own))
    if source == "harmful":
        return usable(checkpoint, harmful_pairs(checkpoint))
    matched = matched_pairs(checkpoint, forget, instruction, seed)
    if source == "auto" and matched.refusal_rate < OFTEN_REFUSED:
        harmful = harmful_pairs(checkpoint)
        return usable(checkpoint, max(matched, harmful, key=lambda pairs: pairs.refusal_rate))
    return usable(checkpoint, matched)


def matched_pairs(checkpoint: Checkpoint, forget: Sequence[Record], instruction: str | None, seed: int) -> Pairs:
    """The forget questions, plain and under the instruction (default: the built-in one that this base obeys best)."""
    turns = [record.user_turn for record in forget]
    asked = random.Random(f"pairs {seed}").sample(turns, min(MOST_PAIRS, len(turns)))
    told = Instruction(instruction) if instruction else _best_instruction(checkpoint, asked)
    return _said(checkpoint, "matched", asked, [told(turn) for turn in asked])


def _best_instruction(checkpoint: Checkpoint, asked: Sequence[Prompt]) -> Instruction:
    """The built-in instruction under which the base refuses most often."""
    probed = asked[:: max(1, len(asked) // _PROBED)][:_PROBED]
    prompts = [told(turn) for told in INSTRUCTIONS for turn in probed]
    refused = _refused(checkpoint, greedy_reply_ids(checkpoint, prompts, max_new_tokens=LONGEST_REPLY))
    counts = [sum(refused[i * len(probed) : (i + 1) * len(probed)]) for i in range(len(INSTRUCTIONS))]
    return INSTRUCTIONS[counts.index(max(counts))]


def harmful_pairs(checkpoint: Checkpoint) -> Pairs:
    """The prompts that travel with the tool; they need nothing but the base."""
    shipped = json.loads(files("mllmeraser.steering").joinpath("prompts.json").read_text(encoding="utf-8"))
    picture = Image.new("RGB", (336, 336), _GREY)
    recall, erasure = ([Prompt(t, image) for image in (None, picture) for t in shipped[side]] for side in _SIDES)
    return _said(checkpoint, "harmful", recall, erasure)


_SIDES = ("recall", "erasure")


def own_pairs(checkpoint: Checkpoint, recall: Sequence[Record], erasure: Sequence[Record]) -> Pairs:
    """The user's own records.

    If the base does not refuse an erasure record whose answer is a refusal, that answer becomes the reply: so a model
    that never refuses can be given a refusal.
    """
    pairs = _said(checkpoint, "own", [record.user_turn for record in recall], [record.user_turn for record in erasure])
    refused = _refused(checkpoint, pairs.erasure_replies)
    replies = [
        reply_ids(checkpoint, record.user_turn, record.answer) if not already and is_refusal(record.answer) else reply
        for record, reply, already in zip(erasure, pairs.erasure_replies, refused, strict=True)
    ]
    return Pairs("own", pairs.recall, pairs.recall_replies, pairs.erasure, replies, pairs.refusal_rate)


def _said(checkpoint: Checkpoint, source: Source, recall: list[Prompt], erasure: list[Prompt]) -> Pairs:
    """Both sides, with the base's own greedy replies."""
    replies = greedy_reply_ids(
        checkpoint, [*recall, *erasure], max_new_tokens=LONGEST_REPLY, progress=f"{source} prompts: replies"
    )
    recall_replies, erasure_replies = replies[: len(recall)], replies[len(recall) :]
    refused = _refused(checkpoint, erasure_replies)
    return Pairs(source, recall, recall_replies, erasure, erasure_replies, sum(refused) / len(refused))


def _refused(checkpoint: Checkpoint, replies: Sequence[Tensor]) -> list[bool]:
    texts = checkpoint.processor.tokenizer.batch_decode(replies, skip_special_tokens=True)
    return [is_refusal(text) for text in texts]


def usable(checkpoint: Checkpoint, pairs: Pairs) -> Pairs:
    """Keep the recall prompts that the base answers and the erasure prompts that it refuses; these in one wording.

    Raises:
        QualityGateError: the base refuses less than half of the erasure prompts, or answers no recall prompt.
    """
    answered = [i for i, refused in enumerate(_refused(checkpoint, pairs.recall_replies)) if not refused]
    refused = [i for i, refuses in enumerate(_refused(checkpoint, pairs.erasure_replies)) if refuses]
    if len(refused) < LEAST_REFUSALS * len(pairs.erasure):
        raise QualityGateError(
            f"the base refuses {pairs.refusal_rate:.0%} of the {pairs.source} erasure prompts, {LEAST_REFUSALS:.0%} "
            "are needed: steering can only strengthen a refusal that the model has; give prompts it refuses with "
            "--recall and --erasure (an erasure answer that is a refusal is used as one), or --refusal-instruction"
        )
    if not answered:
        raise QualityGateError(f"the base refuses all {pairs.source} recall prompts; give ones it answers")
    return Pairs(
        pairs.source,
        [pairs.recall[i] for i in answered],
        [pairs.recall_replies[i] for i in answered],
        [pairs.erasure[i] for i in refused],
        in_one_wording([pairs.erasure_replies[i] for i in refused]),
        pairs.refusal_rate,
    )


def in_one_wording(refusals: Sequence[Tensor]) -> list[Tensor]:
    """The most frequent refusal, as many times as there are refusals. Ties go to the shortest, then to the first."""
    said = [tuple(reply.tolist()) for reply in refusals]
    counts = Counter(said)
    chosen = max(counts, key=lambda reply: (counts[reply], -len(reply)))
    return [refusals[said.index(chosen)]] * len(refusals)
