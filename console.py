"""What a person reads while a command works: everything here goes to stderr, bars only on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")

console = Console(stderr=True, highlight=False)


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate with a progress bar, drawn only when stderr is a terminal and nobody asked for quiet."""
    return rich_track(
        items, description, console=console, transient=True, disable=console.quiet or not console.is_terminal
    )
