"""The families by name, for what must not import torch: an export writes names and never builds a model.

Every name is one of ``modeling_patches`` or of transformers; a test compares each with the class itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from mllmeraser.errors import InputError


@dataclass(frozen=True)
class Family:
    """What an export writes of a family."""

    stem: str  # what the names of its classes share
    published_layers: str  # name of the decoder layers in a published checkpoint
    processor: str  # the class

    @property
    def native(self) -> str:
        """The native class."""
        return f"{self.stem}ForConditionalGeneration"

    @property
    def steered(self) -> str:
        """Our class."""
        return f"MllmEraser{self.native}"

    @property
    def steered_base(self) -> str:
        """Our class below the head, which ``AutoModel`` names where gates are of scope ``token``."""
        return f"MllmEraser{self.stem}Model"

    @property
    def configuration(self) -> str:
        """The class of our configuration."""
        return f"MllmEraser{self.stem}Config"


_LLAVA = "language_model.model.layers"
FAMILIES = {
    "llava": Family("Llava", _LLAVA, "LlavaProcessor"),
    "llava_next": Family("LlavaNext", _LLAVA, "LlavaNextProcessor"),
    "llava_onevision": Family("LlavaOnevision", _LLAVA, "LlavaOnevisionProcessor"),
    "qwen2_vl": Family("Qwen2VL", "model.layers", "Qwen2VLProcessor"),
    "qwen2_5_vl": Family("Qwen2_5_VL", "model.layers", "Qwen2_5_VLProcessor"),
    "qwen3_vl": Family("Qwen3VL", "model.language_model.layers", "Qwen3VLProcessor"),
    "internvl": Family("InternVL", _LLAVA, "InternVLProcessor"),
    "idefics3": Family("Idefics3", "model.text_model.layers", "Idefics3Processor"),
    "smolvlm": Family("SmolVLM", "model.text_model.layers", "SmolVLMProcessor"),
    "gemma3": Family("Gemma3", _LLAVA, "Gemma3Processor"),
    "mistral3": Family("Mistral3", _LLAVA, "PixtralProcessor"),
}
PREFIX = "mllmeraser_"  # of our model types


def family_names(model_type: str, where: object) -> Family:
    """The family of a native ``model_type``.

    Args:
        where: what names it, for the message.

    Raises:
        InputError: it is not supported.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"{where}: model_type '{model_type}' is not supported; supported: {known}")
    return FAMILIES[model_type]
