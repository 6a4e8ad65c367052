"""What a model says: its greedy replies, replies drawn at random, and how likely it finds given replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mllmeraser.inference.encoding import append, continuation, encode, render
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.records.prompts import Prompt


@torch.inference_mode()
def greedy_reply_ids(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 50,
    progress: str | None = None,
) -> list[Tensor]:
    """The token ids of each greedy reply: without padding, with the end-of-sequence token if the model said it."""
    replies: list[Tensor] = [torch.empty(0, dtype=torch.long)] * len(prompts)
    found = run_passes(
        checkpoint,
        "replies",
        prompts,
        lambda rows, shown: _greedy_batch(checkpoint, shown, max_new_tokens),
        lambda rows: max_new_tokens,
        progress=progress,
    )
    for rows, said in found:
        for i, ids, length in zip(rows, said["ids"], said["lengths"].tolist(), strict=True):
            replies[i] = ids[:length]
    return replies


def _greedy_batch(checkpoint: Checkpoint, prompts: Sequence[Prompt], max_new_tokens: int) -> dict[str, Tensor]:
    """``ids`` (b, t), padded, and ``lengths`` (b,)."""
    said = _generated(checkpoint, prompts, max_new_tokens, GREEDY)
    ends = torch.isin(said, end_ids(checkpoint))
    lengths = torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, said.shape[1])
    return {"ids": said, "lengths": lengths}


# Sampling settings of a generation config are meaningless, and warned about, when nothing is drawn.
GREEDY: Mapping[str, Any] = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}


def _generated(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], max_new_tokens: int, settings: Mapping[str, Any]
) -> Tensor:
    """What ``generate`` makes under these settings: the ids behind the prompts, padded, (b · replies a prompt, t)."""
    tokenizer = checkpoint.processor.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    inputs = encode(checkpoint, prompts, padding_side="left")
    model: Any = checkpoint.model
    said: Tensor = model.generate(**inputs, max_new_tokens=max_new_tokens, pad_token_id=pad, **settings)
    return said[:, inputs["input_ids"].shape[1] :].cpu()


def drawn(temperature: float, count: int) -> dict[str, Any]:
    """Settings of ``generate``: so many replies to a prompt, each from the whole distribution at this temperature."""
    return {
        "do_sample": True,
        "temperature": temperature,
        "top_k": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "num_return_sequences": count,
    }


@torch.inference_mode()
def replies_under(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    settings: Mapping[str, Any],
    *,
    max_new_tokens: int = 50,
    seed: int = 0,
    progress: str | None = None,
) -> list[list[str]]:
    """Each prompt's replies under other settings than greedy ones, as text, without special tokens.

    Args:
        settings: keywords of transformers' ``generate``, JSON-ready. ``num_return_sequences`` is the number of replies
            (default: one).
        seed: of what is drawn. Every batch has a seed of its own, so that every process draws the same.
    """
    many = int(settings.get("num_return_sequences", 1))

    def run(rows: Sequence[int], shown: Sequence[Prompt]) -> dict[str, Tensor]:
        torch.manual_seed(1_000_003 * seed + rows[0])
        return {"ids": _generated(checkpoint, shown, max_new_tokens, settings)}

    few = replace(checkpoint, batch_size=max(1, checkpoint.batch_size // many))  # a beam takes as much as a prompt
    replies: list[list[str]] = [[]] * len(prompts)
    with torch.random.fork_rng():
        asked = (max_new_tokens, dict(settings), seed)
        found = run_passes(few, "draws", prompts, run, lambda rows: [*asked, rows], progress=progress)
        for rows, said in found:
            texts = checkpoint.processor.tokenizer.batch_decode(said["ids"], skip_special_tokens=True)
            for at, i in enumerate(rows):
                replies[i] = [text.strip() for text in texts[at * many : (at + 1) * many]]
    return replies


def end_ids(checkpoint: Checkpoint) -> Tensor:
    """The tokens that end a reply, (n,)."""
    ends = checkpoint.model.generation_config.eos_token_id
    if ends is None:
        ends = checkpoint.processor.tokenizer.eos_token_id
    return torch.tensor([] if ends is None else ends, dtype=torch.long).reshape(-1)


def greedy_replies(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 50,
    progress: str | None = None,
) -> list[str]:
    """Each prompt's greedy reply as text, in the order given, without special tokens and outer white space."""
    ids = greedy_reply_ids(checkpoint, prompts, max_new_tokens=max_new_tokens, progress=progress)
    return [text.strip() for text in checkpoint.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def reply_ids(checkpoint: Checkpoint, prompt: Prompt, reply: str) -> Tensor:
    """The token ids of ``reply`` as the chat template puts it behind the prompt (no end-of-sequence token)."""
    tokenizer = checkpoint.processor.tokenizer
    before = render(checkpoint.processor, prompt)
    text = continuation(checkpoint.processor, prompt, reply)
    known = tokenizer(before, add_special_tokens=False)["input_ids"]
    whole = tokenizer(before + text, add_special_tokens=False)["input_ids"]
    # Some tokenizers treat the start of a text as a word of its own: take the reply's tokens from behind the prompt.
    if whole[: len(known)] == known:
        return torch.tensor(whole[len(known) :], dtype=torch.long)
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)


class Likelihood(NamedTuple):
    """How likely a model finds a reply: log p(reply | prompt), summed over its tokens, and the number of tokens."""

    log_p: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Mean log p of a token."""
        return self.log_p / max(1, self.tokens)


@torch.inference_mode()
def reply_likelihoods(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Sequence[str]],
    *,
    progress: str | None = None,
) -> list[list[Likelihood]]:
    """log p(reply | prompt) = Σ_t log p(reply_t | prompt, reply_<t), for every given reply of every prompt.

    Replies are teacher-forced. A checkpoint reads its gate at the prompt's last token, as in generation. Replies to one
    prompt that differ only in their last token share a pass: the prediction there does not depend on that token.
    """
    said = [
        [reply_ids(checkpoint, prompt, reply) for reply in given]
        for prompt, given in zip(prompts, replies, strict=True)
    ]
    flat: list[tuple[int, _Continuation]] = []
    places: list[list[tuple[int, int]]] = []  # of each reply: its pass, and its place among that pass's last tokens
    for i, given in enumerate(said):
        shared: dict[tuple[int, ...], int] = {}
        places.append([])
        for ids in given:
            known, last = tuple(ids[:-1].tolist()), ids[-1:].tolist()
            if known not in shared:
                shared[known] = len(flat)
                flat.append((i, _Continuation(ids[:-1], [])))
            ends = flat[shared[known]][1].ends
            places[-1].append((shared[known], len(ends)))
            ends += last
    asked = [prompts[i] for i, _ in flat]
    scores: list[list[float]] = [[]] * len(flat)
    found = run_passes(
        checkpoint,
        "options",
        asked,
        lambda rows, shown: _likelihoods(checkpoint, shown, [flat[n][1] for n in rows]),
        lambda rows: [[flat[n][1].start.tolist(), flat[n][1].ends] for n in rows],
        progress=progress,
    )
    for batch, likely in found:
        for n, ends in zip(batch, likely["scores"].tolist(), strict=True):
            scores[n] = ends
    return [
        [Likelihood(scores[n][place] if len(ids) else 0.0, len(ids)) for ids, (n, place) in zip(given, at, strict=True)]
        for given, at in zip(said, places, strict=True)
    ]


class _Continuation(NamedTuple):
    """What follows a prompt in one pass: the first tokens, and every last token that may come behind them."""

    start: Tensor
    ends: list[int]


def option_log_likelihoods(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
    *,
    progress: str | None = None,
) -> list[list[float]]:
    """The log p of :func:`reply_likelihoods` alone, for every option of every prompt."""
    rows = reply_likelihoods(checkpoint, prompts, options, progress=progress)
    return [[likely.log_p for likely in row] for row in rows]


def _likelihoods(checkpoint: Checkpoint, prompts: Sequence[Prompt], said: Sequence[_Continuation]) -> dict[str, Tensor]:
    """``scores`` (b, e), fp64: log p(start, end | prompt) of each end, 0 beyond the last."""
    inputs, starts = append(checkpoint, encode(checkpoint, prompts, "right"), [spoken.start for spoken in said])
    pinned = {"steering_prompt_length": starts} if checkpoint.steered else {}
    # Only the logits that predict a reply token are computed: those from the shortest prompt's last token on.
    first = int(starts.min()) - 1
    width = inputs["input_ids"].shape[1]
    logits = checkpoint.model(**inputs, **pinned, use_cache=False, logits_to_keep=width - first).logits.float()
    log_probabilities = logits.log_softmax(dim=-1)
    scores = torch.zeros(len(prompts), max(len(spoken.ends) for spoken in said), dtype=torch.float64)
    for row, (start, ends) in enumerate(said):
        begin = int(starts[row]) - 1 - first
        at = torch.arange(len(start)) + begin
        known = log_probabilities[row, at, start.to(log_probabilities.device)].sum()
        scores[row, : len(ends)] = (known + log_probabilities[row, begin + len(start), ends]).cpu()
    return {"scores": scores}
