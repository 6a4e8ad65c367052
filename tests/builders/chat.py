"""A random LLaVA in memory that can be talked to."""

from __future__ import annotations

from pathlib import Path

from builders import processors, tiny
from builders.records import JOBS

from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.source import Source


def checkpoint(seed: int = 0) -> Checkpoint:
    """A loaded checkpoint with random weights; two of one seed are equal."""
    processor = processors.speaking([*"ABCD", *JOBS, "USER", "ASSISTANT", ":", "."])
    return Checkpoint(tiny.model("llava", seed), processor, Source(Path("tiny")), "llava", steered=False)
