"""Stage 1, the pictures of the recall prompts: clean, with noise, or adversarial.

PGD looks for the picture x + δ, ‖δ‖_∞ ≤ ε, under which the base says its answer y most surely:

    δ ← clamp(δ − s · sign ∇_δ CE(y | x + δ, prompt), −ε, ε),   x + δ clamped to [0, 1],   n times from δ = 0

``noise`` is the control: δ uniform on {−ε, ε}, of the same norm, knowing nothing of the model. x is the picture as the
model sees it, resized and cropped by the processor's own code, in whole grey levels; so what comes out, rounded to grey
levels, is an ordinary picture that the processor leaves as it is: it survives being saved as PNG and read again.
Source: MLLMEraser, arXiv 2510.04217 (targeted PGD: ε 8/255, s 2/255, n 10, no random start); noise control ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor, nn

from mllmeraser.console import track
from mllmeraser.errors import InputError
from mllmeraser.inference.encoding import append, batches, encode, read_image
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.prompts import Prompt
from mllmeraser.steering.forms import Perturbation
from mllmeraser.steering.pairs import Pairs

LEVELS = 255


def perturbed(checkpoint: Checkpoint, pairs: Pairs, how: Perturbation, seed: int, batch_size: int = 16) -> Pairs:
    """The pairs with the recall pictures perturbed; prompts without a picture stay as they are.

    Raises:
        InputError: there is no picture to perturb, or the family's pictures cannot be perturbed.
    """
    if how.kind == "none":
        return pairs
    if not any(prompt.image for prompt in pairs.recall):
        raise InputError(f"--perturbation {how}: no recall prompt has a picture; give records with pictures, or none")
    recall = list(pairs.recall)
    generator = torch.Generator().manual_seed(seed)
    plan = [rows for rows in batches(checkpoint, recall, batch_size) if recall[rows[0]].image]
    for rows in track(plan, f"{how.kind}: pictures"):
        seen = _Seen.of(checkpoint, [recall[i] for i in rows])
        if how.kind == "noise":
            moved = [_noise(pixels, how.epsilon, generator) for pixels in seen.pixels]
        else:
            moved = _attack(checkpoint, seen, [pairs.recall_replies[i] for i in rows], how)
        for i, pixels in zip(rows, moved, strict=True):
            recall[i] = Prompt(recall[i].text, _picture(pixels))
    return replace(pairs, recall=recall)


@dataclass(frozen=True)
class _Seen:
    """A batch of prompts, and its pictures as the model sees them: each (3, y, x) in whole grey levels."""

    checkpoint: Checkpoint
    prompts: list[Prompt]
    pixels: list[Tensor]

    @classmethod
    def of(cls, checkpoint: Checkpoint, prompts: list[Prompt]) -> _Seen:
        """Resize and crop with the processor's own code, without its arithmetic on the colours."""
        processor = checkpoint.processor.image_processor
        pixels = []
        for prompt in prompts:
            values = processor(images=[read_image(prompt)], do_rescale=False, do_normalize=False, return_tensors="pt")
            raw = _unpatched(checkpoint, values["pixel_values"], values.get("image_grid_thw"))
            pixels.append(raw.float().round().clamp(0, LEVELS))
        return cls(checkpoint, prompts, pixels)

    def values(self, pixels: Sequence[Tensor]) -> Tensor:
        """What the processor would make of these pictures, differentiably: rescaled, normalised, laid out."""
        processor = self.checkpoint.processor.image_processor
        mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (processor.image_mean, processor.image_std))
        ready = [(p * processor.rescale_factor - mean) / std for p in pixels]
        device = self.checkpoint.model.device
        if _is_patched(self.checkpoint):
            return torch.cat([_patched(self.checkpoint, p) for p in ready]).to(device)
        return torch.stack(ready).to(device)


def _attack(checkpoint: Checkpoint, seen: _Seen, answers: Sequence[Tensor], how: Perturbation) -> list[Tensor]:
    inputs, starts = append(checkpoint, encode(checkpoint, seen.prompts, "right"), answers)
    dtype = inputs["pixel_values"].dtype
    columns = torch.arange(inputs["input_ids"].shape[1], device=starts.device)
    spoken = (columns >= starts[:, None]) & inputs["attention_mask"].bool()
    labels = inputs["input_ids"].masked_fill(~spoken, -100)[:, 1:].to(checkpoint.model.device)
    weights = [weight for weight in checkpoint.model.parameters() if weight.requires_grad]
    epsilon, step = how.epsilon * LEVELS, how.step * LEVELS
    moved = [pixels.clone() for pixels in seen.pixels]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        for _ in range(how.iterations):
            for pixels in moved:
                pixels.requires_grad_(True)
            logits = checkpoint.model(
                **{**inputs, "pixel_values": seen.values(moved).to(dtype)}, use_cache=False
            ).logits[:, :-1]
            loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
            gradients = torch.autograd.grad(loss, moved)
            moved = [
                _within(pixels.detach() - step * gradient.sign(), clean, epsilon)
                for pixels, gradient, clean in zip(moved, gradients, seen.pixels, strict=True)
            ]
    finally:
        for weight in weights:
            weight.requires_grad_(True)
    return [pixels.detach() for pixels in moved]


def _within(pixels: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    return pixels.clamp(clean - epsilon, clean + epsilon).clamp(0, LEVELS)


def _noise(clean: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    signs = 2.0 * torch.randint(0, 2, clean.shape, generator=generator) - 1
    return _within(clean + epsilon * LEVELS * signs, clean, epsilon * LEVELS)


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.round().to(torch.uint8).permute(1, 2, 0).numpy())


# Qwen's processors hand the vision tower a list of patches, each twice in time and merge × merge of them together.


def _is_patched(checkpoint: Checkpoint) -> bool:
    return "qwen2" in checkpoint.model_type


def _patched(checkpoint: Checkpoint, pixels: Tensor) -> Tensor:
    """(3, y, x) → (patches, 3 · frames · p · p), in the order of Qwen2-VL's image processor."""
    size = checkpoint.processor.image_processor
    p, m, frames = size.patch_size, size.merge_size, size.temporal_patch_size
    rows, columns = pixels.shape[1] // p, pixels.shape[2] // p
    grid = pixels.expand(frames, -1, -1, -1).reshape(frames, 3, rows // m, m, p, columns // m, m, p)
    return grid.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(rows * columns, 3 * frames * p * p)


def _unpatched(checkpoint: Checkpoint, values: Tensor, grid: Tensor | None) -> Tensor:
    """The picture (3, y, x) that became these values."""
    if grid is None:
        return values[0]
    size = checkpoint.processor.image_processor
    p, m, frames = size.patch_size, size.merge_size, size.temporal_patch_size
    _, rows, columns = grid[0].tolist()
    patches = values.reshape(rows // m, columns // m, m, m, 3, frames, p, p)
    return patches[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * p, columns * p)
