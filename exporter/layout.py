"""The names of the files of an exported directory that are ours; the format is described in ``docs/checkpoint.md``."""

from __future__ import annotations

from pathlib import Path

from mllmeraser import modeling_patches
from mllmeraser.exporter.listing import CARD, MANIFEST

# As in the shipped code, which is not asked because it imports torch; a test compares them.
VARIANT = "mllmeraser"
CONFIG, INDEX = "config.json", f"model.safetensors.index.{VARIANT}.json"
STEERING_FILE = "mllmeraser-steering.safetensors"
CODE = ("configuration_mllmeraser.py", "modeling_mllmeraser.py")
# A lone shard must not keep the name model.safetensors: the native class would find it and load, un-erased.
SINGLE_SHARD = "model-00001-of-00001.safetensors"
VARIANT_SINGLE = f"model.{VARIANT}.safetensors"

__all__ = ["CARD", "CODE", "CONFIG", "INDEX", "MANIFEST", "SINGLE_SHARD", "STEERING_FILE", "VARIANT", "VARIANT_SINGLE"]


def shipped_code() -> dict[str, bytes]:
    """The two code files of this version of the tool, as they travel with every export."""
    folder = Path(modeling_patches.__file__).parent
    return {name: (folder / name).read_bytes() for name in CODE}
