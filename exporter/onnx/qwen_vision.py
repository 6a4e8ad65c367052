"""The vision tower of Qwen2.5-VL without loops, so that its graph takes pictures of any number and size.

The native tower cuts the patches into one sequence for each picture, or each window, and loops over the sequences. Here
all patches attend in one product under a mask. Two patches see each other if picture and frame agree; in a windowed
block of the tower the window must agree too. The place of a patch follows from ``grid_thw`` alone. Patches stay in
their given order: nothing is sorted into windows and back. The cost is a mask of N × N patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class QwenVisionEncoder(nn.Module):
    """From patches (N, c) of several pictures and their grids (n, 3) to image features (N / merge², d)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.tower: Any = model.model.visual
        self.config = self.tower.config

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """The merged features, picture by picture."""
        place = _places(pixel_values.shape[0], image_grid_thw, self.config.spatial_merge_size)
        window = self.config.window_size // self.config.spatial_merge_size // self.config.patch_size
        frames = place.picture * (1 + place.frame.max()) + place.frame  # (N,) one number per frame of all pictures
        together = frames[:, None] == frames[None, :]  # (N, N)
        merged = self.config.spatial_merge_size * window
        rows, columns = place.y // merged, place.x // merged
        windowed = together & (rows[:, None] == rows[None, :]) & (columns[:, None] == columns[None, :])
        angles = torch.stack([place.y, place.x], dim=1)[:, :, None] * self.tower.rotary_pos_emb.inv_freq  # (N, 2, ·)
        angles = angles.flatten(1).repeat(1, 2)  # (N, head_dim)
        hidden = self.tower.patch_embed(pixel_values)
        for index, block in enumerate(self.tower.blocks):
            mask = together if index in self.config.fullatt_block_indexes else windowed
            hidden = hidden + _attend(block.attn, block.norm1(hidden), angles, mask)
            hidden = hidden + block.mlp(block.norm2(hidden))
        features: Tensor = self.tower.merger(hidden)
        return features.float()


class _Places:
    """Picture, frame, row and column of every patch, each (N,)."""

    def __init__(self, picture: Tensor, frame: Tensor, y: Tensor, x: Tensor) -> None:
        self.picture, self.frame, self.y, self.x = picture, frame, y, x


def _places(patches: int, grid: Tensor, merge: int) -> _Places:
    """The places of patches, which come frame by frame, in blocks of merge × merge, row by row within a block."""
    sizes = grid.prod(dim=1)
    ends = sizes.cumsum(0)  # (n,)
    index = torch.arange(patches, device=grid.device)
    picture = (index[:, None] >= ends[None, :]).sum(1)
    height, width = grid[:, 1][picture], grid[:, 2][picture]
    index = index - (ends - sizes)[picture]
    frame, index = index // (height * width), index % (height * width)
    block, inner = index // merge**2, index % merge**2
    across = width // merge
    y = (block // across) * merge + inner // merge
    x = (block % across) * merge + inner % merge
    return _Places(picture, frame, y, x)


def _attend(attention: Any, hidden: Tensor, angles: Tensor, mask: Tensor) -> Tensor:
    patches = hidden.shape[0]
    q, k, v = attention.qkv(hidden).reshape(patches, 3, attention.num_heads, -1).permute(1, 2, 0, 3)  # (heads, N, ·)
    cos, sin = angles.cos(), angles.sin()
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    scores = (q @ k.transpose(1, 2)) * attention.scaling
    scores = scores.float().masked_fill(~mask, float("-inf"))
    out: Tensor = attention.proj((scores.softmax(-1).to(v.dtype) @ v).transpose(0, 1).reshape(patches, -1))
    return out


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = states.shape[-1] // 2
    turned = torch.cat([-states[..., half:], states[..., :half]], dim=-1)
    return (states.float() * cos + turned.float() * sin).to(states.dtype)
