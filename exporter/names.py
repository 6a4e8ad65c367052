"""The files of our own that an exported directory holds, beside those that the shipped code knows.

``modeling_patches/format_mllmeraser.py`` names the files of the checkpoint's format; ``docs/checkpoint.md`` lists all.
"""

from __future__ import annotations

from pathlib import Path

from mllmeraser import modeling_patches
from mllmeraser.modeling_patches.format_mllmeraser import CODE

MANIFEST = "mllmeraser.json"
CARD = "README.md"
SIGNATURE = "model.sig"
# A signature, git, the Hub's client or a file browser leaves these. No loader reads them.
LEFT_BY_OTHERS = (SIGNATURE, ".cache", ".git", ".gitattributes", ".gitignore", ".DS_Store")


def shipped_code() -> dict[str, bytes]:
    """The code files that this version of the tool puts into every export, by name."""
    folder = Path(modeling_patches.__file__).parent
    return {name: (folder / name).read_bytes() for name in CODE}
