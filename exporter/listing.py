"""The files that every exported directory has, whatever its format, and how its JSON is written."""

from __future__ import annotations

import json

MANIFEST = "mllmeraser.json"
CARD = "README.md"
SIGNATURE = "model.sig"
# Not ours: left by a signature, git, the Hub's client or a file browser. No loader reads them.
LEFT_BY_OTHERS = (SIGNATURE, ".cache", ".git", ".gitattributes", ".gitignore", ".DS_Store")


def as_json(value: object) -> bytes:
    """JSON as every file of an export is written: sorted, two spaces, UTF-8, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
