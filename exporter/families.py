"""The families by name, for code that must not import torch. An export writes names and never builds a model.

Every name belongs to a class of ``modeling_patches`` or of transformers. A test compares each name with its class.
"""

from __future__ import annotations

from dataclasses import dataclass

from mllmeraser.errors import InputError


@dataclass(frozen=True)
class Family:
    """The names of a family that an export writes."""

    stem: str  # the part that the names of its classes share
    published_layers: str  # the prefix of the decoder layers' tensors in a published checkpoint
    processor: str  # the class of its processor

    @property
    def native(self) -> str:
        """The class of transformers."""
        return f"{self.stem}ForConditionalGeneration"

    @property
    def steered(self) -> str:
        """The steered class."""
        return f"MllmEraser{self.native}"

    @property
    def steered_base(self) -> str:
        """The steered class without the head; ``auto_map`` gives it to ``AutoModel`` if gates have scope ``token``."""
        return f"MllmEraser{self.stem}Model"

    @property
    def configuration(self) -> str:
        """The class of the steered configuration."""
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
    """The family of a base's ``model_type``.

    Args:
        where: the file that holds it, for the message.

    Raises:
        InputError: the family is not supported.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"{where}: model_type '{model_type}' is not supported; supported: {known}")
    return FAMILIES[model_type]
