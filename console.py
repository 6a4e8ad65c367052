"""What a person reads while a command works. All of it goes to stderr; bars are drawn on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")


console = Console(stderr=True, highlight=False)


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate with a progress bar; it is drawn only on a terminal and without ``--quiet``."""
    return rich_track(
        items, description, console=console, transient=True, disable=console.quiet or not console.is_terminal
    )
