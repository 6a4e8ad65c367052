"""Tiny random LLaVA and Qwen2.5-VL models, prompts and steering, for every test that needs a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

HIDDEN = 32
LAYERS = 4
VOCAB = 97
IMAGE = 96  # the image token
PAD = 0
IMAGE_TOKENS = 4  # 2 × 2 patches, without the class token


def llava(seed: int = 0, **config: Any) -> LlavaForConditionalGeneration:
    """A random LLaVA: 4 blocks, hidden size 32, 16-pixel pictures of 4 image tokens."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=16,
    )
    text = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=PAD,
    )
    base = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        initializer_range=0.3,
        **config,
    )
    model = LlavaForConditionalGeneration(base).eval()
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    return model


def prompt(*lengths: int, image: bool = False, side: str = "left", seed: int = 1) -> dict[str, Tensor]:
    """A padded batch of random prompts of these lengths; with ``image`` each starts with a random picture."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        tokens = torch.randint(3, IMAGE, (length,), generator=generator)
        if image:
            tokens[1 : 1 + IMAGE_TOKENS] = IMAGE
        here = slice(width - length, width) if side == "left" else slice(0, length)
        ids[row, here] = tokens
        mask[row, here] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if image:
        batch["pixel_values"] = torch.randn(len(lengths), 3, 16, 16, generator=generator)
    return batch
