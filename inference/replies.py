"""What a checkpoint says: greedy replies, and how likely it finds given ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mllmeraser.inference.encoding import append, continuation, encode, render
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.inference.prompts import Prompt


@torch.inference_mode()
def greedy_reply_ids(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 50,
    batch_size: int = 64,
    progress: str | None = None,
) -> list[Tensor]:
    """The token ids of each greedy reply, without padding, the end-of-sequence token included where it was said."""
    replies: list[Tensor] = [torch.empty(0, dtype=torch.long)] * len(prompts)
    found = run_passes(
        checkpoint,
        "replies",
        prompts,
        lambda rows: _greedy_batch(checkpoint, [prompts[i] for i in rows], max_new_tokens),
        lambda rows: max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    for rows, said in found:
        for i, ids, length in zip(rows, said["ids"], said["lengths"].tolist(), strict=True):
            replies[i] = ids[:length]
    return replies


def _greedy_batch(checkpoint: Checkpoint, prompts: Sequence[Prompt], max_new_tokens: int) -> dict[str, Tensor]:
    """``ids`` (b, t), padded, and ``lengths`` (b,)."""
    model, tokenizer = checkpoint.model, checkpoint.processor.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    inputs = encode(checkpoint, prompts, padding_side="left")
    said = model.generate(
        **inputs, max_new_tokens=max_new_tokens, pad_token_id=pad, do_sample=False, num_beams=1, **_NO_SAMPLING
    )[:, inputs["input_ids"].shape[1] :].cpu()
    ends = torch.isin(said, _end_ids(checkpoint))
    lengths = torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, said.shape[1])
    return {"ids": said, "lengths": lengths}


# Sampling settings of a generation config are meaningless, and warned about, when decoding greedily.
_NO_SAMPLING: dict[str, Any] = {"temperature": None, "top_p": None, "top_k": None}


def _end_ids(checkpoint: Checkpoint) -> Tensor:
    ends = checkpoint.model.generation_config.eos_token_id
    if ends is None:
        ends = checkpoint.processor.tokenizer.eos_token_id
    return torch.tensor([] if ends is None else ends, dtype=torch.long).reshape(-1)


def greedy_replies(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 50,
    batch_size: int = 64,
    progress: str | None = None,
) -> list[str]:
    """Each prompt's greedy reply as text, in the order given, special tokens and outer white space removed."""
    ids = greedy_reply_ids(checkpoint, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
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
    """How likely a model finds a reply: log p(reply | prompt), the sum over its tokens, and how many these are."""

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
    batch_size: int = 64,
    progress: str | None = None,
) -> list[list[Likelihood]]:
    """log p(reply | prompt) = Σ_t log p(reply_t | prompt, reply_<t), for every given reply of every prompt.

    Teacher-forced; in a steered checkpoint the gate is pinned to the prompt's last token, as in generation.
    """
    flat = [(i, reply) for i, given in enumerate(replies) for reply in given]
    asked = [prompts[i] for i, _ in flat]
    scores = [0.0] * len(flat)
    said = [reply_ids(checkpoint, turn, reply) for turn, (_, reply) in zip(asked, flat, strict=True)]
    found = run_passes(
        checkpoint,
        "options",
        asked,
        lambda rows: _likelihoods(checkpoint, [asked[n] for n in rows], [said[n] for n in rows]),
        lambda rows: [said[n].tolist() for n in rows],
        batch_size=batch_size,
        progress=progress,
    )
    for batch, likely in found:
        for n, score in zip(batch, likely["scores"].tolist(), strict=True):
            scores[n] = score
    rows: list[list[Likelihood]] = [[] for _ in prompts]
    for (i, _), score, ids in zip(flat, scores, said, strict=True):
        rows[i].append(Likelihood(score, len(ids)))
    return rows


def option_log_likelihoods(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
    *,
    batch_size: int = 64,
    progress: str | None = None,
) -> list[list[float]]:
    """log p alone of :func:`reply_likelihoods`, for every option of every prompt."""
    rows = reply_likelihoods(checkpoint, prompts, options, batch_size=batch_size, progress=progress)
    return [[likely.log_p for likely in row] for row in rows]


def _likelihoods(checkpoint: Checkpoint, prompts: Sequence[Prompt], said: Sequence[Tensor]) -> dict[str, Tensor]:
    """``scores`` (b,), fp64: log p(reply | prompt)."""
    inputs, starts = append(checkpoint, encode(checkpoint, prompts, "right"), said)
    pinned = {"steering_prompt_length": starts} if checkpoint.steered else {}
    # Only the logits that predict a reply token are computed: those from the shortest prompt's last token on.
    first = int(starts.min()) - 1
    width = inputs["input_ids"].shape[1]
    logits = checkpoint.model(**inputs, **pinned, use_cache=False, logits_to_keep=width - first).logits.float()
    log_probabilities = logits.log_softmax(dim=-1)
    scores = torch.zeros(len(prompts), dtype=torch.float64)
    for row, ids in enumerate(said):
        at = torch.arange(len(ids)) + int(starts[row]) - 1 - first
        scores[row] = float(log_probabilities[row, at, ids.to(log_probabilities.device)].sum())
    return {"scores": scores}
