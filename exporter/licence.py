"""The base's licence, as a card carries it over."""

from __future__ import annotations

import re
from pathlib import Path

from mllmeraser.disk.inside import file_inside
from mllmeraser.exporter.names import CARD

_LICENCE_LINE = re.compile(r"""(license|license_name|license_link):[ \t]*["']?([^\s"'#\[\]{}]+)["']?[ \t]*""")


def read_licence(root: Path) -> dict[str, str]:
    """The ``license…`` keys of the front matter of a base's card; empty if there are none.

    It reads line by line: the card is somebody else's text, and three plain keys need no YAML parser.
    """
    if not (root / CARD).is_file():
        return {}
    lines = file_inside(root, CARD).read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
    matches = [_LICENCE_LINE.fullmatch(line) for line in lines[1:end]]
    return {match[1]: match[2] for match in matches if match is not None}
