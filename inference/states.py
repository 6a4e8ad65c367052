"""Hidden states of one layer, (n, d), in memory or in a file. They are read in pieces: memory does not grow with n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

PIECE = 512  # rows held at a time
_BYTES = 4  # fp32


@dataclass(frozen=True)
class StateFile:
    """A file of ``count`` rows of ``width`` fp32 values. Each row is written once; the order does not matter."""

    path: Path
    count: int
    width: int

    def __len__(self) -> int:
        return self.count

    def write(self, indices: Sequence[int], rows: Tensor) -> None:
        """Put rows (b, d) at these indices."""
        values = rows.float().contiguous().numpy()
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            for index, row in zip(indices, values, strict=True):
                file.seek(index * self.width * _BYTES)
                file.write(row.tobytes())

    def rows(self, indices: Sequence[int]) -> Tensor:
        """The rows (b, d) of these indices."""
        picked = np.empty((len(indices), self.width), dtype=np.float32)
        with self.path.open("rb") as file:
            for place, index in enumerate(indices):
                file.seek(index * self.width * _BYTES)
                picked[place] = np.frombuffer(file.read(self.width * _BYTES), dtype=np.float32)
        return torch.from_numpy(picked)

    def pieces(self) -> Iterator[Tensor]:
        """All rows in order, ``PIECE`` at a time."""
        for start in range(0, self.count, PIECE):
            count = min(PIECE, self.count - start) * self.width
            data = np.fromfile(self.path, dtype=np.float32, count=count, offset=start * self.width * _BYTES)
            yield torch.from_numpy(data.reshape(-1, self.width))


States: TypeAlias = Tensor | StateFile


def pieces(states: States, keep: Tensor | None = None) -> Iterator[Tensor]:
    """The rows in order, ``PIECE`` at a time; with ``keep`` (n,) only the rows that it marks."""
    start = 0
    for piece in states.split(PIECE) if isinstance(states, Tensor) else states.pieces():
        chosen = piece if keep is None else piece[keep[start : start + len(piece)]]
        start += len(piece)
        if len(chosen):
            yield chosen


def rows_at(states: States, indices: Sequence[int]) -> Tensor:
    """The rows (b, d) of these indices."""
    return states[list(indices)] if isinstance(states, Tensor) else states.rows(indices)


def sample_rows(states: States, most: int, generator: torch.Generator) -> Tensor:
    """At most ``most`` of the rows, drawn without replacement."""
    return rows_at(states, torch.randperm(len(states), generator=generator)[:most].tolist())
