"""Configurations of the steered models: the base family's configuration and what the steering needs.

Three flat attributes are added. ``steering_enabled`` and ``steering_strength`` are flat so that
``from_pretrained(DIR, trust_remote_code=True, steering_enabled=False)`` can switch them; ``steering`` is
``{"schema": 1, "file": …, "sha256": …, "requests": [{"id", "enabled", "strength", "layers", "gate_layer",
"gate": {"kind", "shape", "threshold"}, "prompt_positions", "reply_steps", "landmarks"}, …]}``.

The ``model_type`` is our own on purpose: with the base's, a loader without ``trust_remote_code`` would silently
build the native model, un-erased.
"""

from typing import Any

from transformers import LlavaConfig, Qwen2_5_VLConfig


class MllmEraserLlavaConfig(LlavaConfig):
    """LLaVA with steering; see the module's docstring for the added attributes."""

    model_type = "mllmeraser_llava"

    steering_enabled: bool = True
    steering_strength: float = 1.0
    steering: dict[str, Any] | None = None


class MllmEraserQwen2_5_VLConfig(Qwen2_5_VLConfig):  # noqa: N801 - the spelling of the base family
    """Qwen2.5-VL with steering; see the module's docstring for the added attributes."""

    model_type = "mllmeraser_qwen2_5_vl"

    steering_enabled: bool = True
    steering_strength: float = 1.0
    steering: dict[str, Any] | None = None
