"""The three modules that a multimodal model is exported as. They take and give plain tensors.

``vision_encoder`` turns pixels into image features, in the space of the text embeddings. ``embed_tokens`` turns token
ids into embeddings. ``decoder_model_merged`` turns embeddings, mask, positions and the cache of every layer into logits
and the new cache. The wrapper builds the cache object, because an exported graph takes only tensors. In half precision
the cache is half, but pixels, embeddings, features and logits stay fp32, as clients feed and expect them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

Cache = list[tuple[Tensor, Tensor]]


class LlavaVisionEncoder(nn.Module):
    """From pixels (n, 3, height, width) to image features (n, tokens, d)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.tower: Any = model.model.vision_tower
        self.projector: Any = model.model.multi_modal_projector
        layers = model.config.vision_feature_layer
        self.layers = [layers] if isinstance(layers, int) else list(layers)
        self.first = 1 if model.config.vision_feature_select_strategy == "default" else 0  # without the class token

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The features of every picture, after the projector."""
        # The model's own get_image_features makes a list with one entry for each picture, which fixes their number.
        states = self.tower(pixel_values.to(self.tower.dtype), output_hidden_states=True).hidden_states
        selected = torch.cat([states[layer][:, self.first :] for layer in self.layers], dim=-1)
        features: Tensor = self.projector(selected)
        return features.float()


class EmbedTokens(nn.Module):
    """From token ids (b, s) to embeddings (b, s, d)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.embedding = model.get_input_embeddings()

    def forward(self, input_ids: Tensor) -> Tensor:
        """The rows of the embedding matrix."""
        embeddings: Tensor = self.embedding(input_ids)
        return embeddings.float()


class Decoder(nn.Module):
    """From embeddings (b, s, d) and the cache to logits (b, s, v) and the new cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.config = model.config.get_text_config()
        self.decoder: Any = model.get_decoder()
        self.head = model.get_output_embeddings()

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: Cache
    ) -> tuple[Tensor, Cache]:
        """One forward pass. ``attention_mask`` (b, past + s); ``position_ids`` (b, s), or (3, b, s) for Qwen2.5-VL."""
        cache = DynamicCache(past_key_values, config=self.config)
        outputs = self.decoder(
            inputs_embeds=inputs_embeds.to(self.decoder.dtype),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        present = [(layer.keys, layer.values) for layer in cache.layers]
        return self.head(outputs.last_hidden_state).float(), present
