"""Configurations of the steered models: the base family's configuration and what the steering needs.

Three flat attributes are added. ``steering_enabled`` and ``steering_strength`` are flat so that
``from_pretrained(DIR, trust_remote_code=True, steering_enabled=False)`` can switch them; ``steering`` is
``{"schema": 2, "file": …, "sha256": …, "requests": [{"id", "enabled", "strength", "layers", "gate_layer",
"gate": {"kind", "shape", "threshold", "scope", "projection", "turn"}, "edit", "prompt_positions", "reply_steps",
"landmarks"}, …], "seal": {file: sha256}}``.

The ``model_type`` is our own on purpose: with the base's, a loader without ``trust_remote_code`` would silently
build the native model, un-erased.
"""

import sys
from contextvars import ContextVar
from typing import Any, ClassVar

import transformers
from transformers import AutoModelForImageTextToText, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from .format_mllmeraser import FAMILIES, MODEL_TYPE_PREFIX, Family, SteeringError


class SteeringConfig:
    """The attributes that steering adds; see the module's docstring."""

    steering_enabled: bool = True
    steering_strength: float = 1.0
    steering: dict[str, Any] | None = None
    # Whether the steered model itself saves. Here, because transformers may execute this file more than once.
    saving: ClassVar[ContextVar[bool]] = ContextVar("mllmeraser_saving", default=False)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, for the steered model that is saved.

        Raises:
            SteeringError: somebody else saves it, who would leave out the steering file and the seal:
                ``PreTrainedModel.save_pretrained(model, DIR)`` and converters do.
        """
        if not self.saving.get():
            raise SteeringError("a steered configuration is saved with its model: model.save_pretrained(DIR)")
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]


def _configuration(model_type: str, family: Family) -> type[PretrainedConfig]:
    """The configuration of a family, under its name in this module."""
    native = getattr(transformers, f"{family.stem}Config")
    facts = {"__module__": __name__, "model_type": MODEL_TYPE_PREFIX + model_type}
    cls = type(family.configuration, (SteeringConfig, native), facts)
    setattr(sys.modules[__name__], family.configuration, cls)
    return cls


CONFIGURATIONS = {model_type: _configuration(model_type, family) for model_type, family in FAMILIES.items()}

# until `transformers serve` asks the auto_map: it knows a class by its name only, whatever it trusts: it looks the
# architecture up among the models that take pictures, and in the `transformers` module it has imported, which need not
# be the one of sys.modules (there are two of them once a processor has been imported). The auto class finds ours.
_SERVERS = ("transformers.cli.serving.model_manager", "transformers.commands.serving")  # transformers 5, and 4.57
for _model_type, _family in FAMILIES.items():
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[MODEL_TYPE_PREFIX + _model_type] = _family.steered
    for _server in _SERVERS:
        if _server in sys.modules:
            setattr(sys.modules[_server].transformers, _family.steered, AutoModelForImageTextToText)
