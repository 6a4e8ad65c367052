"""States for gates that are read everywhere: positions all over a conversation, and how far any of them opens a gate.

With the scopes ``conversation`` and ``token`` every position is read. No position of a retain conversation may open the
gate, neither in the prompt nor in the reply. So a gate is *fitted* on several positions of each record:

* of a retain record ``KEPT_POSITIONS``: the last prompt token, some near it or in the base's own reply, some anywhere,
  and twice as many of the picture. What all portraits share stands there, and where only the forgotten's own portraits
  are known it would pass for them.
* of a forget record ``POSITIONS`` (fit ``positions``), half of them where the whole picture has been seen, or its last
  token only (fit ``end``).

And a gate is *judged*, and its threshold chosen, on the position that opens it furthest, of all that the conversation
has (:func:`furthest`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mllmeraser.inference.activations import reading, refuse_non_finite, watching
from mllmeraser.inference.encoding import append, encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.inference.states import StateFile
from mllmeraser.records.prompts import Prompt
from mllmeraser.steering.gate import Gate, readings

POSITIONS = 8  # of a forget record
OF_PICTURE = 16  # further ones of a retain record
KEPT_POSITIONS = POSITIONS + OF_PICTURE
NEAR = 32  # so many positions before the reply count as near it
LONGEST_REPLY = 32


@torch.inference_mode()
def stream_token_states(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    layers: Sequence[int],
    folder: Path,
    *,
    seed: int,
    progress: str | None = None,
) -> dict[int, StateFile]:
    """h_l at ``KEPT_POSITIONS`` positions of each prompt and of the reply to it.

    Args:
        replies: token ids (t,) of each prompt's reply.

    Returns:
        per layer a file of (n · KEPT_POSITIONS, d), in the order of ``prompts``; the rows of a prompt lie together, its
        last token first.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    width = checkpoint.model.config.get_text_config().hidden_size
    files = {layer: StateFile(folder / f"layer-{layer}", len(prompts) * KEPT_POSITIONS, width) for layer in layers}
    for places, read in _by_batch(checkpoint, prompts, replies, kept_positions, layers, seed, progress):
        for layer, states in read.items():
            files[layer].write(places, states)
    return files


@torch.inference_mode()
def prompt_token_states(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], layers: Sequence[int], *, seed: int, progress: str | None = None
) -> dict[int, Tensor]:
    """h_l at ``POSITIONS`` positions of each prompt, the last token first.

    Returns:
        per layer (n · POSITIONS, d), fp32, in the order of ``prompts``; the rows of a prompt lie together.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    found: dict[int, Tensor] = {}
    for places, read in _by_batch(checkpoint, prompts, no_replies(prompts), forget_positions, layers, seed, progress):
        for layer, states in read.items():
            found.setdefault(layer, torch.empty(len(prompts) * POSITIONS, states.shape[-1]))[places] = states
    return found


def no_replies(prompts: Sequence[Prompt]) -> list[Tensor]:
    """An empty reply to each prompt."""
    return [torch.empty(0, dtype=torch.long)] * len(prompts)


@torch.inference_mode()
def furthest(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    gates: Mapping[int, Sequence[Sequence[Gate]]],
    groups: Sequence[int] | None = None,
    *,
    progress: str | None = None,
) -> dict[int, Tensor]:
    """max_t g(h_t) over every position t of each prompt and of the reply to it.

    Args:
        replies: token ids (t,) of each prompt's reply; an empty one where the prompt alone counts.
        gates: by layer and group, m gates that were fitted together.
        groups: the group whose gates read a prompt, (n,); None: the first group's read all.

    Returns:
        per layer (n, m), fp64.
    """
    of = [0] * len(prompts) if groups is None else groups
    found = {
        layer: torch.empty(len(prompts), len(of_layer[0]), dtype=torch.float64) for layer, of_layer in gates.items()
    }
    marks = {layer: [[_digest(gate) for gate in group] for group in of_layer] for layer, of_layer in gates.items()}
    passes = run_passes(
        checkpoint,
        "furthest",
        prompts,
        lambda rows, shown: _furthest(checkpoint, shown, [replies[i] for i in rows], gates, [of[i] for i in rows]),
        lambda rows: [marks, [(of[i], replies[i].tolist()) for i in rows]],
        progress=progress,
    )
    for rows, read in passes:
        for layer, values in read.items():
            found[layer][rows] = values
    return found


def _furthest(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    gates: Mapping[int, Sequence[Sequence[Gate]]],
    groups: Sequence[int],
) -> dict[int, Tensor]:
    """Per layer (b, m)."""
    inputs, _ = append(checkpoint, encode(checkpoint, prompts, "right"), replies)
    real = inputs["attention_mask"].bool().cpu()
    group_of = torch.tensor(groups)[:, None]
    read: dict[int, Tensor] = {}

    def see(layer: int, hidden: Tensor) -> None:
        opening = torch.full((*real.shape, len(gates[layer][0])), -torch.inf, dtype=torch.float64)
        for group in sorted(set(groups)):
            here = real & (group_of == group)
            opening[here] = readings(gates[layer][group], hidden[here.to(hidden.device)].cpu())
        read[layer] = opening.amax(dim=1)

    with watching(checkpoint, sorted(gates), see):
        checkpoint.model(**inputs, use_cache=False, logits_to_keep=1)  # no logits are read
    return read


def _digest(gate: Gate) -> str:
    tensors = gate.tensors()
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


class Places(NamedTuple):
    """Where the tokens of a prompt and of the reply to it lie."""

    end: int  # the column of the first reply token
    length: int  # columns in all
    picture: Sequence[int] = ()  # columns that hold a picture


Draw = Callable[[Places, random.Random], list[int]]


def _by_batch(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    draw: Draw,
    layers: Sequence[int],
    seed: int,
    progress: str | None,
) -> Iterator[tuple[list[int], dict[int, Tensor]]]:
    """Rows of the result, and their states (b · k, d) by layer; ``draw`` gives k columns of each prompt."""
    found = run_passes(
        checkpoint,
        "token-states",
        prompts,
        lambda rows, shown: _states(checkpoint, shown, [replies[i] for i in rows], draw, rows, layers, seed),
        lambda rows: [
            sorted(layers),
            draw.__name__,
            POSITIONS,
            OF_PICTURE,
            NEAR,
            seed,
            rows,
            [replies[i].tolist() for i in rows],
        ],
        progress=progress,
    )
    for batch, read in found:
        flat = {layer: states.flatten(0, 1) for layer, states in read.items()}
        k = len(next(iter(flat.values()))) // len(batch)
        for layer, states in flat.items():
            refuse_non_finite(layer, prompts, [i for i in batch for _ in range(k)], states)
        yield [i * k + at for i in batch for at in range(k)], flat


def _states(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    draw: Draw,
    numbers: Sequence[int],
    layers: Sequence[int],
    seed: int,
) -> dict[int, Tensor]:
    """Per layer (b, k, d)."""
    inputs, ends = append(checkpoint, encode(checkpoint, prompts, "right"), replies)
    of_picture = inputs["input_ids"] == checkpoint.processor.image_token_id
    columns = [
        draw(Places(end, end + len(reply), shows.nonzero()[:, 0].tolist()), random.Random(f"positions {seed} {number}"))
        for end, reply, shows, number in zip(ends.tolist(), replies, of_picture, numbers, strict=True)
    ]
    read: dict[int, Tensor] = {}
    with reading(checkpoint, layers, torch.tensor(columns), read):
        checkpoint.model(**inputs, use_cache=False, logits_to_keep=1)  # no logits are read
    return read


def forget_positions(places: Places, rng: random.Random) -> list[int]:
    """``POSITIONS`` columns of a prompt: its last token, others from the picture's last on, and as many anywhere."""
    seen = places.picture[-1] if places.picture else 0
    behind = [rng.randrange(seen, places.end) for _ in range(POSITIONS // 2 - 1)]
    return [places.end - 1, *behind, *_anywhere(places.end, POSITIONS // 2, rng)]


def kept_positions(places: Places, rng: random.Random) -> list[int]:
    """``KEPT_POSITIONS`` columns of a prompt and its reply, ``OF_PICTURE`` of them of its picture if it has one."""
    near = [rng.randrange(max(0, places.end - NEAR), places.length) for _ in range(POSITIONS // 2 - 1)]
    if places.picture:
        of_picture = rng.choices(places.picture, k=OF_PICTURE)
    else:
        of_picture = _anywhere(places.length, OF_PICTURE, rng)
    return [places.end - 1, *near, *_anywhere(places.length, POSITIONS // 2, rng), *of_picture]


def _anywhere(length: int, count: int, rng: random.Random) -> list[int]:
    return [rng.randrange(length) for _ in range(count)]
