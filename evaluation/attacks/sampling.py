"""Attack by sampling: many random replies instead of the likeliest one, and any that gives the answer away counts.

Greedy decoding hides what a model still says with some probability (arXiv 2410.03523).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene, judged
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.passes import run_passes
from mllmeraser.records.prompts import Prompt

DRAWS = 8


def sampling(scene: Scene) -> list[Reading]:
    """Draw eight replies at temperature 1 from the whole distribution."""
    turns = scene.turns
    rows = [row for row in range(len(turns)) for _ in range(DRAWS)]
    prompts = [turns[row] for row in rows]
    return judged(scene, rows, prompts, _sampled(scene, prompts))


@torch.inference_mode()
def _sampled(scene: Scene, prompts: Sequence[Prompt]) -> list[str]:
    said = [""] * len(prompts)
    tokenizer = scene.checkpoint.processor.tokenizer
    with torch.random.fork_rng():
        found = run_passes(
            scene.checkpoint,
            "draws",
            prompts,
            lambda rows, shown: _batch(scene, shown, rows[0]),
            lambda rows: [scene.max_new_tokens, scene.seed, rows],
        )
        for rows, drawn in found:
            texts = tokenizer.batch_decode(drawn["ids"], skip_special_tokens=True)
            for i, text in zip(rows, texts, strict=True):
                said[i] = text.strip()
    return said


def _batch(scene: Scene, prompts: Sequence[Prompt], first: int) -> dict[str, Tensor]:
    """``ids`` (b, t), padded with the end-of-sequence or padding token.

    Every batch has its own seed, so that every process would draw the same replies.
    """
    torch.manual_seed(1_000_003 * scene.seed + first)
    inputs = encode(scene.checkpoint, prompts, padding_side="left")
    tokenizer = scene.checkpoint.processor.tokenizer
    ids = scene.checkpoint.model.generate(
        **inputs,
        max_new_tokens=scene.max_new_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_beams=1,
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    return {"ids": ids[:, inputs["input_ids"].shape[1] :].cpu()}


SAMPLING = Attack("sampling", f"{DRAWS} replies at temperature 1; any that gives it away counts.", sampling)
