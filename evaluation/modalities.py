"""Compares the same fact asked in words and beside a picture: does the model know it in both, in neither, or in one?

These are UMU-Bench's metrics (arXiv 2025, NeurIPS datasets and benchmarks), for records that carry a ``fact``. Two
records of one set, subject and task with the same ``fact`` are a pair.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from mllmeraser.evaluation.items import Item
from mllmeraser.judging.results_file import ModalityGap
from mllmeraser.records.record import Task
from mllmeraser.records.same import normal

Pair = tuple[Item, Item]


def modality_gaps(items: Sequence[Item], forgotten: Collection[str]) -> list[ModalityGap]:
    """The metrics over all pairs, by model, set and task.

    * ``both_correct``, ``both_wrong``: shares of pairs; UMU-Bench's Acc_R on kept sets and Acc_F on forgotten ones.
    * ``gap``: accuracy beside the picture minus accuracy in words.
    * ``rouge_l_aligned``: the mean of :func:`forget_alignment` (RL_F) on a forgotten set, of :func:`retain_alignment`
      (RL_R) on a kept one.
    """
    cells: dict[tuple[str, str, Task], list[Pair]] = {}
    halves: dict[tuple[str, str, str, str, str], Item] = {}
    for item in items:
        if item.fact is None:
            continue
        other = halves.pop(key, None) if (key := _key(item)) in halves else None
        if other is None or other.modality == item.modality:
            halves[key] = item
            continue
        shown, told = (item, other) if item.modality == "image_text" else (other, item)
        cells.setdefault((item.model, item.set, item.task), []).append((shown, told))
    return [
        ModalityGap(
            model=model,
            set=set_name,
            task=task,
            pairs=len(pairs),
            both_correct=_mean([shown.correct and told.correct for shown, told in pairs]),
            both_wrong=_mean([not shown.correct and not told.correct for shown, told in pairs]),
            gap=_mean([shown.correct - told.correct for shown, told in pairs]),
            rouge_l_aligned=_mean([_alignment(set_name in forgotten, *pair) for pair in pairs]),
        )
        for (model, set_name, task), pairs in cells.items()
    ]


def _alignment(forgotten: bool, shown: Item, told: Item) -> float:
    return (forget_alignment if forgotten else retain_alignment)(shown.rouge_l, told.rouge_l)


def forget_alignment(a: float, b: float) -> float:
    """(a² + b²) / (a + b), 0 where both are 0. It is near the larger of the two, so a leak in one modality shows."""
    return (a * a + b * b) / (a + b) if a + b else 0.0


def retain_alignment(a: float, b: float) -> float:
    """2ab / (a + b), 0 where both are 0. It is near the smaller of the two, so a loss in one modality shows."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _key(item: Item) -> tuple[str, str, str, str, str]:
    return item.model, item.set, normal(item.subject), item.task, str(item.fact)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
