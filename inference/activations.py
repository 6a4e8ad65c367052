"""Hidden states of the base, layer by layer: at the last prompt token and along a reply.

h_l ∈ R^d is the *output* of decoder layer l (the residual stream after the layer), where the steering will act. Only
the rows that are asked for leave the forward pass. The pass stops after the last layer that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mllmeraser.errors import InputError
from mllmeraser.inference.encoding import append, encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.inference.states import StateFile
from mllmeraser.records.prompts import Prompt


class _LastNeededBlock(Exception):  # noqa: N818 - not an error: the pass has done its work
    """Raised inside the forward pass once every wanted layer has been read."""


def decoder_layers(checkpoint: Checkpoint) -> nn.ModuleList:
    """The decoder layers of the language model, in order."""
    layers = checkpoint.model.get_decoder().layers
    assert isinstance(layers, nn.ModuleList)
    return layers


@contextmanager
def reading(checkpoint: Checkpoint, layers: Sequence[int], columns: Tensor, into: dict[int, Tensor]) -> Iterator[None]:
    """Inside the context, a forward pass leaves h_l at ``columns`` (b, k) in ``into[l]`` (b, k, d), and then stops."""

    def see(layer: int, hidden: Tensor) -> None:
        rows = torch.arange(len(columns), device=hidden.device)[:, None]
        into[layer] = hidden[rows, columns.to(hidden.device)].float().cpu()

    with watching(checkpoint, layers, see):
        yield


@contextmanager
def watching(checkpoint: Checkpoint, layers: Sequence[int], see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Inside the context, a forward pass shows ``see`` each layer and its h_l (b, s, d), and then stops."""
    modules = decoder_layers(checkpoint)
    last = max(layers)
    handles = []

    def hook(layer: int):  # type: ignore[no-untyped-def]  # a forward hook: torch's own signature
        def run(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            see(layer, output[0] if isinstance(output, tuple) else output)
            if layer == last:
                raise _LastNeededBlock

        return run

    try:
        for layer in layers:
            handles.append(modules[layer].register_forward_hook(hook(layer)))
        yield
    except _LastNeededBlock:
        pass
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def last_prompt_states(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    *,
    progress: str | None = None,
) -> dict[int, Tensor]:
    """h_l at the last prompt token.

    Returns:
        per layer, fp32 (n, d) in the order of ``prompts``.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    states: dict[int, Tensor] = {}
    for batch, read in _last_states_by_batch(checkpoint, prompts, layers, progress):
        for layer, rows in read.items():
            refuse_non_finite(layer, prompts, batch, rows)
            states.setdefault(layer, torch.empty(len(prompts), rows.shape[-1]))[batch] = rows
    return states


@torch.inference_mode()
def stream_prompt_states(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    folder: Path,
    *,
    progress: str | None = None,
) -> dict[int, StateFile]:
    """As :func:`last_prompt_states`, but into one file per layer in ``folder``: memory does not grow with the prompts.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    width = checkpoint.model.config.get_text_config().hidden_size
    files = {layer: StateFile(folder / f"layer-{layer}", len(prompts), width) for layer in layers}
    for batch, read in _last_states_by_batch(checkpoint, prompts, layers, progress):
        for layer, rows in read.items():
            refuse_non_finite(layer, prompts, batch, rows)
            files[layer].write(batch, rows)
    return files


def _last_states_by_batch(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], layers: Sequence[int], progress: str | None
) -> Iterator[tuple[list[int], dict[int, Tensor]]]:
    return run_passes(
        checkpoint,
        "states",
        prompts,
        lambda rows, shown: _last_states(checkpoint, shown, layers),
        lambda rows: sorted(layers),
        progress=progress,
    )


def refuse_non_finite(layer: int, prompts: Sequence[Prompt], batch: Sequence[int], rows: Tensor) -> None:
    """Check that states ``rows`` (b, d) of one layer are finite; ``batch`` holds the index of each row's prompt.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    wrong = (~torch.isfinite(rows)).any(dim=1).nonzero()[:, 0]
    if len(wrong):
        worst = min(batch[int(row)] for row in wrong)
        raise InputError(
            f"layer {layer}: the state of record {worst + 1} is not finite ({prompts[worst].named}); "
            "try --dtype float32"
        )


def _last_states(checkpoint: Checkpoint, prompts: Sequence[Prompt], layers: Sequence[int]) -> dict[int, Tensor]:
    inputs = encode(checkpoint, prompts, padding_side="right")
    columns = inputs["attention_mask"].sum(dim=1, keepdim=True) - 1
    read: dict[int, Tensor] = {}
    with reading(checkpoint, layers, columns, read):
        checkpoint.model(**inputs, use_cache=False, logits_to_keep=1)  # no logits are read
    return {layer: rows[:, 0] for layer, rows in read.items()}


@torch.inference_mode()
def mean_reply_states(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    layers: Sequence[int],
    steps: int,
    *,
    progress: str | None = None,
) -> tuple[dict[int, Tensor], Tensor]:
    """Means of h_l at positions P−1+k of (prompt + reply), teacher-forced, for k = 0 … steps−1.

    A reply of R tokens has the positions k < R; the state at the last position predicts the last token.

    Args:
        replies: token ids, one tensor per prompt.

    Returns:
        per layer the means (steps, d), fp64, zero where no reply is long enough; and how many replies each is made of.

    Raises:
        InputError: a state is not finite; the message names the prompt.
    """
    sums: dict[int, Tensor] = {}
    found = run_passes(
        checkpoint,
        "reply-sums",
        prompts,
        lambda rows, shown: _reply_sums(checkpoint, shown, [replies[i] for i in rows], layers, steps),
        lambda rows: [sorted(layers), steps, [replies[i].tolist() for i in rows]],
        progress=progress,
    )
    for _, read in found:
        for layer, total in read.items():
            sums[layer] = sums[layer] + total if layer in sums else total
    counts = _reached(replies, steps).sum(dim=0).double()
    return {layer: total / counts.clamp(min=1)[:, None] for layer, total in sums.items()}, counts


def _reached(replies: Sequence[Tensor], steps: int) -> Tensor:
    """Which positions k each reply has, boolean (b, steps); an empty reply has k = 0, the prompt's last token."""
    return torch.arange(steps) < torch.tensor([max(1, len(reply)) for reply in replies])[:, None]


def _reply_sums(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], replies: Sequence[Tensor], layers: Sequence[int], steps: int
) -> dict[int, Tensor]:
    """Per layer the sum of the states (steps, d), fp64."""
    cut = [reply[: steps - 1] for reply in replies]
    inputs, starts = append(checkpoint, encode(checkpoint, prompts, "right"), cut)
    there = _reached(replies, steps)
    columns = (starts.cpu()[:, None] - 1 + torch.arange(steps)).clamp(max=inputs["input_ids"].shape[1] - 1)
    read: dict[int, Tensor] = {}
    with reading(checkpoint, layers, columns, read):
        checkpoint.model(**inputs, use_cache=False, logits_to_keep=1)  # no logits are read
    sums = {}
    for layer, rows in read.items():
        reached = rows.double().masked_fill(~there[..., None], 0.0)  # (b, steps, d)
        for prompt, states in zip(prompts, reached, strict=True):
            if not bool(torch.isfinite(states).all()):
                raise InputError(
                    f"layer {layer}: a state along the reply to {prompt.named} is not finite; try --dtype float32"
                )
        sums[layer] = reached.sum(dim=0)
    return sums
