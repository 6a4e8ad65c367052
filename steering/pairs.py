"""Stage 1, the prompts: *recall* prompts the base answers, and *erasure* prompts it refuses.

Three sources. ``matched``: the forget questions as they are, and the same questions under an instruction to refuse.
``harmful``: mild requests and harmful ones, shipped with the tool (``prompts.json``), each in words alone and beside a
plain grey picture, whatever is to be forgotten (as in the paper). Or the user's own records.

A direction towards refusing can only be read from a model that refuses, so that is measured: pairs of which the base
answers the erasure side, or refuses the recall side, are left out, and too few of them are an error.

A model may refuse in several wordings, and a direction along the reply is a mean by position. So one wording, the
model's most frequent, is put behind every erasure prompt (the states are teacher-forced anyway): no position then
averages different words. On the demo model the mean over three wordings was as fluent (``benchmarks/ablations.py``).
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
OFTEN_REFUSED = 0.9  # matched pairs refused less often are weighed against harmful ones
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
    """Recall and erasure prompts with their replies (token ids), and how often the base refused the erasure side."""

    source: Source
    recall: list[Prompt]
    recall_replies: list[Tensor]
    erasure: list[Prompt]
    erasure_replies: list[Tensor]
    refusal_rate: float

    @property
    def refusal_length(self) -> int:
        """Tokens of the longest refusal, its end-of-sequence token included."""
        return max(len(reply) for reply in self.erasure_replies)


def choose_pairs(
    checkpoint: Checkpoint,
    forget: Sequence[Record],
    source: Literal["auto", "matched", "harmful"],
    own: tuple[Sequence[Record], Sequence[Record]] | None,
    instruction: str | None,
    seed: int,
) -> Pairs:
    """The pairs of the source asked for; ``auto``: ``matched``, unless the base refuses ``harmful`` prompts more often.

    Args:
        own: recall and erasure records of the user, which go before any source.

    Raises:
        QualityGateError: less than half of the erasure prompts are refused, or no recall prompt is answered.
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
    """Forget questions, plain and under the instruction (default: of ours, the one this base obeys best)."""
    turns = [record.user_turn for record in forget]
    asked = random.Random(f"pairs {seed}").sample(turns, min(MOST_PAIRS, len(turns)))
    told = Instruction(instruction) if instruction else _best_instruction(checkpoint, asked)
    return _said(checkpoint, "matched", asked, [told(turn) for turn in asked])


def _best_instruction(checkpoint: Checkpoint, asked: Sequence[Prompt]) -> Instruction:
    """The instruction of ours that is refused most often."""
    probed = asked[:: max(1, len(asked) // _PROBED)][:_PROBED]
    prompts = [told(turn) for told in INSTRUCTIONS for turn in probed]
    refused = _refused(checkpoint, greedy_reply_ids(checkpoint, prompts, max_new_tokens=LONGEST_REPLY))
    counts = [sum(refused[i * len(probed) : (i + 1) * len(probed)]) for i in range(len(INSTRUCTIONS))]
    return INSTRUCTIONS[counts.index(max(counts))]


def harmful_pairs(checkpoint: Checkpoint) -> Pairs:
    """The prompts that travel with the tool; needs nothing but the base."""
    shipped = json.loads(files("mllmeraser.steering").joinpath("prompts.json").read_text(encoding="utf-8"))
    picture = Image.new("RGB", (336, 336), _GREY)
    recall, erasure = ([Prompt(t, image) for image in (None, picture) for t in shipped[side]] for side in _SIDES)
    return _said(checkpoint, "harmful", recall, erasure)


_SIDES = ("recall", "erasure")


def own_pairs(checkpoint: Checkpoint, recall: Sequence[Record], erasure: Sequence[Record]) -> Pairs:
    """The user's own records. Where the base does not refuse an erasure record whose answer is a refusal, the answer
    is taken for the reply: a refusal can be given to a model that has none."""
    pairs = _said(checkpoint, "own", [record.user_turn for record in recall], [record.user_turn for record in erasure])
    refused = _refused(checkpoint, pairs.erasure_replies)
    replies = [
        reply_ids(checkpoint, record.user_turn, record.answer) if not already and is_refusal(record.answer) else reply
        for record, reply, already in zip(erasure, pairs.erasure_replies, refused, strict=True)
    ]
    return Pairs("own", pairs.recall, pairs.recall_replies, pairs.erasure, replies, pairs.refusal_rate)


def _said(checkpoint: Checkpoint, source: Source, recall: list[Prompt], erasure: list[Prompt]) -> Pairs:
    """The base's own greedy replies to both sides."""
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
    """Only recall prompts that are answered, and erasure prompts that are refused, all of these in one wording.

    Raises:
        QualityGateError: less than half of the erasure prompts are refused, or no recall prompt is answered.
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
    """As many replies, each the one that is said most often; of equals the shortest, then the first."""
    said = [tuple(reply.tolist()) for reply in refusals]
    counts = Counter(said)
    chosen = max(counts, key=lambda reply: (counts[reply], -len(reply)))
    return [refusals[said.index(chosen)]] * len(refusals)
