"""The files of every exported directory, whatever its format, and the form of its JSON."""

from __future__ import annotations

import json

MANIFEST = "mllmeraser.json"
CARD = "README.md"
SIGNATURE = "model.sig"
# A signature, git, the Hub's client or a file browser leaves these. No loader reads them.
LEFT_BY_OTHERS = (SIGNATURE, ".cache", ".git", ".gitattributes", ".gitignore", ".DS_Store")


def as_json(value: object) -> bytes:
    """The JSON of every file of an export: sorted keys, two spaces, UTF-8, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
