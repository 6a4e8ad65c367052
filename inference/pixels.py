"""A picture as the model sees it: the processor's own code resizes and crops it, in whole grey levels 0 … 255.

Only arithmetic lies between these grey levels and a model's ``pixel_values``: rescale, normalise, lay out. It is
repeated here so that a gradient can pass. Qwen's processors lay a picture out as a list of patches, each patch twice in
time, and merge × merge patches together. All other processors leave the picture as it is.

Such a picture, saved as PNG, passes through its processor unchanged and gives the very same ``pixel_values``.
:func:`seen` checks this. So a processor that works otherwise (tiles, overlapping crops) is an error, not a perturbation
of something else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.inference.encoding import read_image
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.prompts import Prompt

LEVELS = 255
# In a normalised value, where one grey level is about 0.015: torchvision fuses what PIL does in two steps.
ROUNDING = 1e-4


def seen(checkpoint: Checkpoint, prompt: Prompt) -> Tensor:
    """The prompt's picture as the model sees it: (3, y, x), fp32, whole grey levels.

    Raises:
        InputError: the picture cannot be read, or the family shows its model something else than one picture.
    """
    raw, grid = _processed(checkpoint, read_image(prompt), do_rescale=False, do_normalize=False)
    if raw.ndim != (4 if grid is None else 2):
        raise _not_one_picture(checkpoint)
    pixels = (raw[0] if grid is None else unpatched(checkpoint, raw, grid)).float().round().clamp(0, LEVELS)
    theirs, again = _processed(checkpoint, picture(pixels))
    ours = pixel_values(checkpoint, [pixels])
    same_grid = grid is None or (again is not None and bool((grid == again).all()))
    if not same_grid or ours.shape != theirs.shape or float((ours - theirs).abs().max()) > ROUNDING:
        raise _not_one_picture(checkpoint)
    return pixels


def picture(pixels: Tensor) -> Image.Image:
    """The picture of these grey levels (3, y, x), rounded to whole ones."""
    return Image.fromarray(pixels.round().to(torch.uint8).permute(1, 2, 0).numpy())


def pixel_values(checkpoint: Checkpoint, pictures: Sequence[Tensor]) -> Tensor:
    """What the processor would make of these pictures (3, y, x); a gradient can pass."""
    processor = checkpoint.processor.image_processor
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    # The processor rescales in fp64 and normalises in fp32.
    ready = [((pixels.double() * processor.rescale_factor).float() - mean) / std for pixels in pictures]
    if is_patched(checkpoint):
        return torch.cat([patched(checkpoint, pixels) for pixels in ready])
    return torch.stack(ready)


def is_patched(checkpoint: Checkpoint) -> bool:
    """Whether the processor lays a picture out as a list of patches."""
    return "image_grid_thw" in checkpoint.processor.image_processor.model_input_names


def patched(checkpoint: Checkpoint, pixels: Tensor) -> Tensor:
    """(3, y, x) → (patches, 3 · frames · p · p), in the order of Qwen2-VL's image processor."""
    size = checkpoint.processor.image_processor
    p, m, frames = size.patch_size, size.merge_size, size.temporal_patch_size
    rows, columns = pixels.shape[1] // p, pixels.shape[2] // p
    grid = pixels.expand(frames, -1, -1, -1).reshape(frames, 3, rows // m, m, p, columns // m, m, p)
    return grid.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(rows * columns, 3 * frames * p * p)


def unpatched(checkpoint: Checkpoint, values: Tensor, grid: Tensor) -> Tensor:
    """The picture (3, y, x) behind these patches; ``grid`` (1, 3) counts them in time, down and across."""
    size = checkpoint.processor.image_processor
    p, m, frames = size.patch_size, size.merge_size, size.temporal_patch_size
    _, rows, columns = grid[0].tolist()
    patches = values.reshape(rows // m, columns // m, m, m, 3, frames, p, p)
    return patches[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * p, columns * p)


def _processed(checkpoint: Checkpoint, image: Image.Image, **options: bool) -> tuple[Tensor, Tensor | None]:
    values = checkpoint.processor.image_processor(images=[image], return_tensors="pt", **options)
    return values["pixel_values"], values.get("image_grid_thw")


def _not_one_picture(checkpoint: Checkpoint) -> InputError:
    return InputError(
        f"--perturbation: the processor of {checkpoint.model_type} does not show its model one picture, resized and "
        "cropped; give --perturbation none"
    )
