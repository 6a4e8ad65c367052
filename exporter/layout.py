"""The names of the files that an export adds; ``docs/checkpoint.md`` describes the format."""

from __future__ import annotations

from pathlib import Path

from mllmeraser import modeling_patches
from mllmeraser.exporter.listing import CARD, MANIFEST

# The same name stands in the shipped code, which imports torch. A test compares the two.
VARIANT = "mllmeraser"
CONFIG, INDEX = "config.json", f"model.safetensors.index.{VARIANT}.json"
STEERING_FILE = "mllmeraser-steering.safetensors"
CODE = ("configuration_mllmeraser.py", "modeling_mllmeraser.py")
# A single shard must not keep the name model.safetensors: the native class would load it, without the steering.
SINGLE_SHARD = "model-00001-of-00001.safetensors"
VARIANT_SINGLE = f"model.{VARIANT}.safetensors"

__all__ = ["CARD", "CODE", "CONFIG", "INDEX", "MANIFEST", "SINGLE_SHARD", "STEERING_FILE", "VARIANT", "VARIANT_SINGLE"]


def shipped_code() -> dict[str, bytes]:
    """The two code files that this version of the tool puts into every export, by name."""
    folder = Path(modeling_patches.__file__).parent
    return {name: (folder / name).read_bytes() for name in CODE}
