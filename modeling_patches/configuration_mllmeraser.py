"""Configurations of the steered models: the base family's configuration and what the steering needs.

Three flat attributes are added. ``steering_enabled`` and ``steering_strength`` are flat so that
``from_pretrained(DIR, trust_remote_code=True, steering_enabled=False)`` can switch them; ``steering`` is
``{"schema": 1, "file": …, "sha256": …, "requests": [{"id", "enabled", "strength", "layers", "gate_layer",
"gate": {"kind", "shape", "threshold"}, "prompt_positions", "reply_steps", "landmarks"}, …], "seal": {file: sha256}}``.

The ``model_type`` is our own on purpose: with the base's, a loader without ``trust_remote_code`` would silently
build the native model, un-erased.
"""

import sys
from typing import Any

from transformers import (
    AutoModelForImageTextToText,
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
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


class SteeringConfig:
    """The attributes that steering adds; see the module's docstring."""

    steering_enabled: bool = True
    steering_strength: float = 1.0
    steering: dict[str, Any] | None = None


class MllmEraserLlavaConfig(SteeringConfig, LlavaConfig):
    model_type = "mllmeraser_llava"


class MllmEraserLlavaNextConfig(SteeringConfig, LlavaNextConfig):
    model_type = "mllmeraser_llava_next"


class MllmEraserLlavaOnevisionConfig(SteeringConfig, LlavaOnevisionConfig):
    model_type = "mllmeraser_llava_onevision"


class MllmEraserQwen2VLConfig(SteeringConfig, Qwen2VLConfig):
    model_type = "mllmeraser_qwen2_vl"


class MllmEraserQwen2_5_VLConfig(SteeringConfig, Qwen2_5_VLConfig):  # noqa: N801 - the spelling of the base family
    model_type = "mllmeraser_qwen2_5_vl"


class MllmEraserQwen3VLConfig(SteeringConfig, Qwen3VLConfig):
    model_type = "mllmeraser_qwen3_vl"


class MllmEraserInternVLConfig(SteeringConfig, InternVLConfig):
    model_type = "mllmeraser_internvl"


class MllmEraserIdefics3Config(SteeringConfig, Idefics3Config):
    model_type = "mllmeraser_idefics3"


class MllmEraserSmolVLMConfig(SteeringConfig, SmolVLMConfig):
    model_type = "mllmeraser_smolvlm"


class MllmEraserGemma3Config(SteeringConfig, Gemma3Config):
    model_type = "mllmeraser_gemma3"


class MllmEraserMistral3Config(SteeringConfig, Mistral3Config):
    model_type = "mllmeraser_mistral3"


CONFIGURATIONS: tuple[type[PretrainedConfig], ...] = (
    MllmEraserLlavaConfig,
    MllmEraserLlavaNextConfig,
    MllmEraserLlavaOnevisionConfig,
    MllmEraserQwen2VLConfig,
    MllmEraserQwen2_5_VLConfig,
    MllmEraserQwen3VLConfig,
    MllmEraserInternVLConfig,
    MllmEraserIdefics3Config,
    MllmEraserSmolVLMConfig,
    MllmEraserGemma3Config,
    MllmEraserMistral3Config,
)

# `transformers serve` knows a class by its name only, whatever it trusts: it looks the architecture up among the models
# that take pictures, and in the `transformers` module it has imported, which need not be the one of sys.modules (there
# are two of them once a processor has been imported). The auto class finds ours through the auto_map.
_SERVERS = ("transformers.cli.serving.model_manager", "transformers.commands.serving")  # transformers 5, and 4.57
for _configuration in CONFIGURATIONS:
    _architecture = _configuration.__name__.removesuffix("Config") + "ForConditionalGeneration"
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[_configuration.model_type] = _architecture
    for _server in _SERVERS:
        if _server in sys.modules:
            setattr(sys.modules[_server].transformers, _architecture, AutoModelForImageTextToText)
