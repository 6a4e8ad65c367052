"""A base checkpoint as the exporter sees it: configuration, shards and the files beside them; never a loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from mllmeraser.errors import InputError
from mllmeraser.exporter.checks import one_line
from mllmeraser.exporter.distrust import file_inside, without_dangerous_keys
from mllmeraser.exporter.layout import CONFIG
from mllmeraser.exporter.weights import Weights, read_weights
from mllmeraser.files import sha256_of
from mllmeraser.inference.source import Source, read_config
from mllmeraser.modeling_patches.modeling_mllmeraser import SteeringError, SteeringMixin, steered_class
from mllmeraser.steering.bundle import Base


@dataclass(frozen=True)
class BaseCheckpoint:
    """What an export needs to know of its base."""

    source: Source
    root: Path  # the resolved directory
    config: dict[str, Any]  # as parsed, nothing dropped
    config_sha256: str  # of the bytes of config.json
    family: type[SteeringMixin]
    hidden_size: int
    num_layers: int
    weights: Weights

    @property
    def model_type(self) -> str:
        """The native ``model_type``."""
        return str(self.config["model_type"])

    @property
    def architecture(self) -> str:
        """The native class."""
        return self.family.native_class.__name__

    @property
    def identity(self) -> Base:
        """What a bundle says of the base it is for."""
        return Base(
            repo_id=self.source.repo_id,
            revision=self.source.revision,
            architecture=self.architecture,
            model_type=self.model_type,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            config_sha256=self.config_sha256,
        )


def read_base(source: Source) -> BaseCheckpoint:
    """Read configuration and headers of a base.

    Raises:
        InputError: no or no valid ``config.json``, an unknown family, an export of ours, or unusable weights.
    """
    root = source.path.resolve()
    if not root.is_dir():
        raise InputError(f"{source.path}: no such directory; give a local checkpoint or a Hub id org/name[@revision]")
    config_path = file_inside(root, CONFIG)
    config = read_config(root)
    model_type = str(config["model_type"])
    if model_type.startswith("mllmeraser_"):
        raise InputError(
            f"{source.path}: already steered ({model_type}); export all bundles together from its base instead"
        )
    try:
        family = steered_class(model_type)
    except SteeringError as error:
        raise InputError(f"{source.path}/{CONFIG}: {error}") from None
    try:
        # The native class fills in what a published configuration leaves out: LLaVA-1.5's has no hidden_size.
        text = family.native_class.config_class.from_dict(without_dangerous_keys(config)).get_text_config()
        hidden_size, num_layers = int(text.hidden_size), int(text.num_hidden_layers)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise InputError(f"{source.path}/{CONFIG}: not a {model_type} configuration ({one_line(error)})") from None
    return BaseCheckpoint(
        source, root, config, sha256_of(config_path), family, hidden_size, num_layers, read_weights(root)
    )
