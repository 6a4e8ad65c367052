"""A base as the exporter sees it: its configuration, its shards and the files beside them. No model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from mllmeraser.bundle.metadata import Base
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.disk.inside import file_inside
from mllmeraser.errors import InputError, first_line
from mllmeraser.exporter.distrust import without_dangerous_keys
from mllmeraser.exporter.weights import Weights, read_weights
from mllmeraser.inference.source import Source, read_config
from mllmeraser.inference.usable import check_base, check_files
from mllmeraser.inference.weight_files import beside_sha256, shard_names
from mllmeraser.modeling_patches.format_mllmeraser import CONFIG, MODEL_TYPE_PREFIX, Family, SteeringError, family_of

if TYPE_CHECKING:
    from mllmeraser.modeling_patches.modeling_mllmeraser import SteeringMixin


@dataclass(frozen=True)
class BaseCheckpoint:
    """What an export needs to know about its base."""

    source: Source
    root: Path  # the resolved directory
    config: dict[str, Any]  # as parsed, nothing dropped
    config_sha256: str  # of the bytes of config.json
    names: Family
    hidden_size: int
    num_layers: int
    weights: Weights

    @property
    def model_type(self) -> str:
        """The base's own ``model_type``."""
        return str(self.config["model_type"])

    @property
    def architecture(self) -> str:
        """The name of the base's own class."""
        return self.names.native

    @property
    def family(self) -> type[SteeringMixin]:
        """The steered class. Imports torch."""
        from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class

        return steered_class(self.model_type)

    @property
    def identity(self) -> Base:
        """The base as a bundle describes it."""
        return Base(
            repo_id=self.source.repo_id,
            revision=self.source.revision,
            architecture=self.architecture,
            model_type=self.model_type,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            config_sha256=self.config_sha256,
        )


def read_base(source: Source, known: Base | None = None) -> BaseCheckpoint:
    """Read the configuration of a base and the headers of its shards.

    Args:
        known: the base as a bundle describes it. If the bundle was computed with this configuration, the sizes come
            from it, and the sha256 of weights too. Otherwise transformers tells the sizes; importing it takes seconds
            and hundreds of megabytes.

    Raises:
        InputError: ``config.json`` is missing or damaged, the family is unknown, the base is steered already, or its
            weights cannot be used.
    """
    root = source.path.resolve()
    if not root.is_dir():
        raise InputError(f"{source.path}: no such directory; give a local checkpoint or a Hub id org/name[@revision]")
    config_path = file_inside(root, CONFIG)
    config = read_config(root)
    model_type = str(config["model_type"])
    if model_type.startswith(MODEL_TYPE_PREFIX):
        raise InputError(
            f"{source.path}: already steered ({model_type}); export all bundles together from its base instead"
        )
    try:
        names = family_of(model_type)
    except SteeringError as error:
        raise InputError(f"{source.path}/{CONFIG}: {error}") from None
    config_sha256 = sha256_of(config_path)
    try:
        if known is not None and known.config_sha256 == config_sha256:
            hidden_size, num_layers = _stated_sizes(config, known)
        else:
            hidden_size, num_layers = _sizes(model_type, config)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise InputError(f"{source.path}/{CONFIG}: not a {model_type} configuration ({first_line(error)})") from None
    check_files(root)
    weights = read_weights(root, None if known is None else known.weights)
    return BaseCheckpoint(source, root, config, config_sha256, names, hidden_size, num_layers, weights)


def check_usable(base: BaseCheckpoint, known: Base | None = None) -> None:
    """Check the base as a whole, unless whoever made the bundle has done so.

    A bundle vouches for the base that it was computed on: its configuration, its weights by their size, and the files
    beside them. Checking any other imports transformers.

    Raises:
        InputError: the base is not usable (:mod:`mllmeraser.inference.usable`).
    """
    if known is None or not _vouches(known, base):
        check_base(base.source)


def _vouches(known: Base, base: BaseCheckpoint) -> bool:
    sizes = {name: (base.root / name).stat().st_size for name in shard_names(base.root)}
    recorded = None if known.weights is None else {name: file.size for name, file in known.weights.items()}
    return (
        known.config_sha256 == base.config_sha256
        and recorded in (None, sizes)
        and known.beside_sha256 in (None, beside_sha256(base.root))
    )


def _stated_sizes(config: dict[str, Any], known: Base) -> tuple[int, int]:
    """Hidden size and number of layers, by the configuration; the bundle fills in what the configuration omits."""
    text = config.get("text_config", config)
    return text.get("hidden_size", known.hidden_size), text.get("num_hidden_layers", known.num_layers)


def _sizes(model_type: str, config: dict[str, Any]) -> tuple[int, int]:
    """The same; the native class fills in what is omitted. LLaVA-1.5's configuration has no hidden_size."""
    from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class

    native = steered_class(model_type).native_class
    text = native.config_class.from_dict(without_dangerous_keys(config)).get_text_config()
    return int(text.hidden_size), int(text.num_hidden_layers)
