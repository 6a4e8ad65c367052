"""A true LLaVA on SmolLM2-135M-Instruct: a vision tower of the toy's kind, a projector, and the language model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from mllmeraser.demo.architecture import IMAGE, IMAGE_TOKENS, vision_config

RANK, ALPHA = 16, 32
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_TEXT = "model.language_model."


def build_config(text: LlamaConfig, tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """The configuration for a language model of this shape, with one token more."""
    vision = vision_config()
    settings = {
        key: value
        for key, value in text.to_dict().items()
        if key not in ("quantization_config", "_name_or_path", "architectures", "dtype", "transformers_version")
    }
    settings |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**settings),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )


def build_model(language_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """The language model with a tower and a projector of random weights, drawn from torch's global generator; fp32.

    The embedding of the image token is zero: features of the picture take its place, and its logit is 0, far below a
    likely token's.
    """
    config = build_config(language_model.config, tokenizer)
    model = LlavaForConditionalGeneration(config)
    weights = {
        name.replace("model.", _TEXT, 1): weight
        for name, weight in language_model.state_dict().items()
        if name.startswith("model.")
    }
    embedding = weights[f"{_TEXT}embed_tokens.weight"]
    more = embedding.new_zeros((len(tokenizer) - len(embedding), embedding.shape[1]))
    weights[f"{_TEXT}embed_tokens.weight"] = torch.cat([embedding, more])
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and not any(name.startswith(_TEXT) for name in missing)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=50,
    )
    return model


@torch.no_grad()
def merge(model: LlavaForConditionalGeneration, adapter: Mapping[str, Tensor]) -> None:
    """W + (α/r) B A for every projection of the language model. Keys: the weight's name, and ``.A`` or ``.B``."""
    weights = model.state_dict()
    for name in {key.rpartition(".")[0] for key in adapter}:
        down, up = adapter[f"{name}.A"].float(), adapter[f"{name}.B"].float()
        weight = weights[f"{name}.weight"]
        weight += (ALPHA / RANK * (up @ down)).to(weight)
