"""Attack by a loop of one's own: the prompt goes in token by token, and the reply is decoded by hand.

A gate that waits to be told where the prompt ends sees no prompt here: only single tokens beside a cache. Servers with
chunked prefill and hand-written loops do the same without any ill will.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene, judged
from mllmeraser.inference.encoding import SEQUENCE_KEYS, encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.inference.replies import end_ids
from mllmeraser.records.prompts import Prompt


def token_by_token(scene: Scene) -> list[Reading]:
    """Feed every prompt token by token; of a prompt with pictures the first piece reaches to the last picture's end."""
    checkpoint, turns = scene.checkpoint, scene.turns

    def run(rows: Sequence[int], shown: Sequence[Prompt]) -> dict[str, Tensor]:
        said = [_fed(checkpoint, prompt, scene.max_new_tokens) for prompt in shown]
        return {"ids": torch.nn.utils.rnn.pad_sequence(said, batch_first=True, padding_value=-1)}

    replies = [""] * len(turns)
    for rows, said in run_passes(checkpoint, "fed", turns, run, lambda rows: scene.max_new_tokens):
        for row, ids in zip(rows, said["ids"], strict=True):
            text = checkpoint.processor.tokenizer.decode(ids[ids >= 0], skip_special_tokens=True)
            replies[row] = text.strip()
    return judged(scene, range(len(turns)), turns, replies)


@torch.inference_mode()
def _fed(checkpoint: Checkpoint, prompt: Prompt, max_new_tokens: int) -> Tensor:
    """The ids of one prompt's greedy reply, (t,)."""
    model: Any = checkpoint.model
    # until 5.23 goes: the argument had another name
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    inputs = encode(checkpoint, [prompt], "right")
    along = {key: inputs.pop(key) for key in SEQUENCE_KEYS if key in inputs}  # what is left describes pictures
    ids, cache, said = along["input_ids"], DynamicCache(config=model.config), list[int]()
    ends = set(end_ids(checkpoint).tolist())
    begin, end = 0, first_piece(checkpoint, ids[0], bool(prompt.pictures))
    while True:
        piece = {key: values[:, begin:end] for key, values in along.items()}
        piece["attention_mask"] = along["attention_mask"][:, :end]
        logits = model(**piece, **(inputs if begin == 0 else {}), **{name: cache}, use_cache=True).logits
        begin, end = end, end + 1
        if begin < along["input_ids"].shape[1]:
            continue
        token = int(logits[0, -1].argmax())
        said.append(token)
        if token in ends or len(said) == max_new_tokens:
            return torch.tensor(said)
        for key, values in along.items():
            more = {"input_ids": token, "attention_mask": 1}.get(key, 0)
            along[key] = torch.cat([values, values.new_full((1, 1), more)], dim=1)


def first_piece(checkpoint: Checkpoint, ids: Tensor, pictured: bool) -> int:
    """Where the first piece of ``ids`` (s,) ends: behind the last picture's tokens, or behind the first token."""
    if not pictured:
        return 1
    token = checkpoint.processor.tokenizer.convert_tokens_to_ids(checkpoint.processor.image_token)
    return int((ids == token).nonzero()[-1]) + 1


TOKEN_BY_TOKEN = Attack(
    "token-by-token", "The prompt fed token by token beside a cache, the reply decoded by hand.", token_by_token
)
