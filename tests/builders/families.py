"""The true architecture of every family, as small as it goes, and random pictures in the form each of them takes.

Hidden size 32, 4 decoder layers, 16-pixel pictures. Adding a family: one function, one line in ``CONFIGS``, and its
pictures in :func:`pictures` where they are not ``pixel_values`` (b, 3, 16, 16) of 4 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    Gemma3Config,
    Idefics3Config,
    InternVLConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    Mistral3Config,
    PretrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)

HIDDEN = 32
LAYERS = 4
VOCAB = 97
PAD = 0
IMAGE = 96  # the image token
VISION_START = 95
VIDEO = 94
SPECIAL = 93  # this token and later ones are never generated
PIXELS = 16

Family = Literal[
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "internvl",
    "idefics3",
    "smolvlm",
    "gemma3",
    "mistral3",
]

VISION: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP = VISION | {"model_type": "clip_vision_model", "image_size": PIXELS, "patch_size": 8, "projection_dim": 16}
SIGLIP = VISION | {"model_type": "siglip_vision_model", "image_size": PIXELS, "patch_size": 8, "vision_use_head": False}
QWEN_VISION: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2}
QWEN_VISION |= {"temporal_patch_size": 2, "hidden_size": 16, "intermediate_size": 32, "out_hidden_size": HIDDEN}
QWEN_TOKENS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": VISION_START}
QWEN_TOKENS |= {"vision_end_token_id": SPECIAL}
# As published configurations say it, and as transformers 4 and 5 both read it.
MROPE = {"rope_theta": 10000.0, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
GRID = {"image_grid_pinpoints": [[PIXELS, PIXELS]]}

Text = dict[str, Any]


def text_config(hidden: int, tied: bool) -> Text:
    """What the language models have in common."""
    return {
        "vocab_size": VOCAB,
        "hidden_size": hidden,
        "intermediate_size": hidden * 3 // 2,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": PAD,
        "tie_word_embeddings": tied,
    }


def _llava(text: Text) -> PretrainedConfig:
    return LlavaConfig(
        vision_config=CLIP,
        text_config={"model_type": "llama", **text},
        image_token_index=IMAGE,
        image_seq_length=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )


def _llava_next(text: Text) -> PretrainedConfig:
    return LlavaNextConfig(
        vision_config=CLIP, text_config={"model_type": "llama", **text}, image_token_index=IMAGE, **GRID,
        vision_feature_layer=-1,
    )  # fmt: skip


def _llava_onevision(text: Text) -> PretrainedConfig:
    return LlavaOnevisionConfig(
        vision_config=SIGLIP, text_config={"model_type": "qwen2", **text}, image_token_index=IMAGE,
        video_token_index=VIDEO, vision_feature_layer=-1, **GRID,
    )  # fmt: skip


def _qwen2_vl(text: Text) -> PretrainedConfig:
    vision = QWEN_VISION | {"embed_dim": 16, "hidden_size": HIDDEN, "mlp_ratio": 2}
    return Qwen2VLConfig(vision_config=vision, text_config=text | MROPE, **QWEN_TOKENS)


def _qwen2_5_vl(text: Text) -> PretrainedConfig:
    vision = QWEN_VISION | {"window_size": 16, "fullatt_block_indexes": [1]}
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text | MROPE, **QWEN_TOKENS)


def _qwen3_vl(text: Text) -> PretrainedConfig:
    vision = QWEN_VISION | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "mrope_interleaved": True}
    positions = {"rope_theta": 10000.0, "rope_scaling": rope, "head_dim": 8}
    return Qwen3VLConfig(vision_config=vision, text_config=text | positions, **QWEN_TOKENS)


def _internvl(text: Text) -> PretrainedConfig:
    vision = VISION | {"image_size": [PIXELS, PIXELS], "patch_size": [4, 4]}
    return InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **text},
        image_token_id=IMAGE,
        image_seq_length=4,
        downsample_ratio=0.5,
    )


def _idefics3(text: Text) -> PretrainedConfig:
    vision = VISION | {"image_size": PIXELS, "patch_size": 4}
    text = {"model_type": "llama", **text}
    return Idefics3Config(
        vision_config=vision, text_config=text, image_token_id=IMAGE, scale_factor=2, pad_token_id=PAD
    )


def _smolvlm(text: Text) -> PretrainedConfig:
    vision = VISION | {"image_size": PIXELS, "patch_size": 4}
    text = {"model_type": "llama", **text}
    return SmolVLMConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, scale_factor=2, pad_token_id=PAD)


def _gemma3(text: Text) -> PretrainedConfig:
    kinds = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    heads = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6, "layer_types": kinds}
    return Gemma3Config(
        vision_config=SIGLIP,
        text_config=text | heads,
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=VISION_START,
        eoi_token_index=SPECIAL,
    )


def _mistral3(text: Text) -> PretrainedConfig:
    return Mistral3Config(
        vision_config=VISION | {"model_type": "pixtral", "image_size": PIXELS, "patch_size": 4},
        text_config={"model_type": "mistral", "head_dim": 8, **text},
        image_token_index=IMAGE,
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )


CONFIGS: dict[Family, Callable[[Text], PretrainedConfig]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
    "mistral3": _mistral3,
}


def config(family: Family, hidden: int = HIDDEN, tied: bool = False) -> PretrainedConfig:
    """The configuration of a tiny model of this family."""
    made = CONFIGS[family](text_config(hidden, tied))
    made.tie_word_embeddings, made.initializer_range = tied, 0.3
    return made


def image_tokens(family: Family) -> int:
    """Tokens of one picture."""
    # A low-resolution view, a tile of the same size, and a line break after each of its two rows.
    return 10 if family in ("llava_next", "llava_onevision") else 4


def pictures(family: Family, ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """One random picture a row, as this family's ``forward`` takes it beside ``input_ids`` (b, s)."""
    rows = ids.shape[0]

    def pixels(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if family.startswith("qwen"):
        return {
            "pixel_values": pixels(rows * 16, 3 * 2 * 4 * 4),
            "image_grid_thw": torch.tensor([[1, 4, 4]] * rows),
            "mm_token_type_ids": (ids == IMAGE).int(),
        }
    sizes = {"image_sizes": torch.tensor([[PIXELS, PIXELS]] * rows)}
    if family in ("llava_next", "llava_onevision"):
        return {"pixel_values": pixels(rows, 2, 3, PIXELS, PIXELS), **sizes}
    if family in ("idefics3", "smolvlm"):
        return {"pixel_values": pixels(rows, 1, 3, PIXELS, PIXELS)}
    flat = {"pixel_values": pixels(rows, 3, PIXELS, PIXELS)}
    if family == "mistral3":
        return flat | sizes
    return flat | {"token_type_ids": (ids == IMAGE).int()} if family == "gemma3" else flat
