"""States for gates that are read everywhere: positions from the whole conversation of a retain record.

With the scopes ``conversation`` and ``token`` every position is read. No position of a retain conversation may open the
gate, neither in the prompt nor in the reply. So the gate is fitted, and its threshold chosen, against ``POSITIONS``
positions of each record: the last prompt token, and others drawn from the prompt and the base's own reply. Half of
these lie near the end of the prompt or later, because draws from everywhere would mostly hit a long picture.

The fit ``positions`` takes the forget prompts at as many positions: a gate that is read everywhere is fitted where it
is read. The fit ``end`` takes their last token only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mllmeraser.inference.activations import reading, refuse_non_finite
from mllmeraser.inference.encoding import append, encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.states import StateFile
from mllmeraser.records.prompts import Prompt

POSITIONS = 12  # of each record
NEAR = 32  # so many positions before the reply count as near it
LONGEST_REPLY = 32


@torch.inference_mode()
def stream_token_states(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    folder: Path,
    *,
    seed: int,
    progress: str | None = None,
) -> dict[int, StateFile]:
    """h_l at ``POSITIONS`` positions of each prompt and of the base's greedy reply to it.

    Returns:
        per layer a file of (n · POSITIONS, d), in the order of ``prompts``; the rows of a prompt lie together.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    replies = greedy_reply_ids(checkpoint, prompts, max_new_tokens=LONGEST_REPLY, progress="retain replies")
    width = checkpoint.model.config.get_text_config().hidden_size
    files = {layer: StateFile(folder / f"layer-{layer}", len(prompts) * POSITIONS, width) for layer in layers}
    for places, read in _by_batch(checkpoint, prompts, replies, layers, seed, progress):
        for layer, states in read.items():
            files[layer].write(places, states)
    return files


@torch.inference_mode()
def prompt_token_states(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], layers: Sequence[int], *, seed: int, progress: str | None = None
) -> dict[int, Tensor]:
    """h_l at ``POSITIONS`` positions of each prompt, the last token among them.

    Returns:
        per layer (n · POSITIONS, d), fp32, in the order of ``prompts``; the rows of a prompt lie together.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    found: dict[int, Tensor] = {}
    nothing = [torch.empty(0, dtype=torch.long)] * len(prompts)
    for places, read in _by_batch(checkpoint, prompts, nothing, layers, seed, progress):
        for layer, states in read.items():
            found.setdefault(layer, torch.empty(len(prompts) * POSITIONS, states.shape[-1]))[places] = states
    return found


def _by_batch(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    layers: Sequence[int],
    seed: int,
    progress: str | None,
) -> Iterator[tuple[list[int], dict[int, Tensor]]]:
    """Rows of the result, and their states (b · POSITIONS, d) by layer."""
    found = run_passes(
        checkpoint,
        "token-states",
        prompts,
        lambda rows, shown: _states(checkpoint, shown, [replies[i] for i in rows], rows, layers, seed),
        lambda rows: [sorted(layers), POSITIONS, NEAR, seed, rows, [replies[i].tolist() for i in rows]],
        progress=progress,
    )
    for batch, read in found:
        of_row = [i for i in batch for _ in range(POSITIONS)]
        flat = {layer: states.flatten(0, 1) for layer, states in read.items()}
        for layer, states in flat.items():
            refuse_non_finite(layer, prompts, of_row, states)
        yield [i * POSITIONS + k for i in batch for k in range(POSITIONS)], flat


def _states(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    numbers: Sequence[int],
    layers: Sequence[int],
    seed: int,
) -> dict[int, Tensor]:
    """Per layer (b, POSITIONS, d)."""
    inputs, starts = append(checkpoint, encode(checkpoint, prompts, "right"), replies)
    columns = [
        drawn_positions(start, start + len(reply), random.Random(f"positions {seed} {number}"))
        for start, reply, number in zip(starts.tolist(), replies, numbers, strict=True)
    ]
    read: dict[int, Tensor] = {}
    with reading(checkpoint, layers, torch.tensor(columns), read):
        checkpoint.model(**inputs, use_cache=False)
    return read


def drawn_positions(start: int, end: int, rng: random.Random) -> list[int]:
    """``POSITIONS`` columns below ``end``; ``start`` is the column of the first reply token."""
    near = [rng.randrange(max(0, start - NEAR), end) for _ in range((POSITIONS - 1) // 2)]
    anywhere = [rng.randrange(end) for _ in range(POSITIONS - 1 - len(near))]
    return [start - 1, *near, *anywhere]
