"""Sums up each model in one line: what it kept, what it forgot, and how far it is from a model that never knew."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mllmeraser.evaluation.items import Item
from mllmeraser.judging.means import harmonic_mean, mean
from mllmeraser.judging.metrics import cannot_tell
from mllmeraser.judging.ranking import ks_p_value
from mllmeraser.judging.results_file import Row, SummaryLine


def summary(
    rows: Sequence[Row], items: Sequence[Item], forgotten: Collection[str], reference: str | None
) -> list[SummaryLine]:
    """One line for each model; a value that cannot be computed is null.

    The knowledge of a row is MLLMU-Bench's headline: ROUGE-L for open questions, accuracy for the other tasks.

    * ``utility_harmonic_mean``: harmonic mean of the knowledge of the kept rows. It is low if any one row is.
    * ``forget_knowledge``: arithmetic mean of the knowledge of the forgotten rows.
    * ``forget_gap_to_reference``: ``forget_knowledge`` minus the reference's. 0 is best: a gap on either side tells the
      two models apart.
    * ``forget_quality_ks_p``: :func:`ks_p_value` of the truth ratios on the forgotten sets, against the reference's.
    * ``probability``: mean on the forgotten sets.
    * ``truth_ratio``: mean of :func:`cannot_tell` on the forgotten sets.
    * ``kept_identical``: share of kept replies whose tokens are the base's.
    * ``score``: harmonic mean of utility and forgetting. Forgetting is 1 − |gap| with a reference, else
      1 − ``forget_knowledge``.
    """
    ratios = {
        name: [
            item.truth_ratio
            for item in items
            if item.model == name and item.set in forgotten and item.truth_ratio is not None
        ]
        for name in dict.fromkeys(row.model for row in rows)
    }
    known = {name: _forget_knowledge(rows, name, forgotten) for name in ratios}
    found = []
    for name, own in ratios.items():
        kept = [_knowledge(row) for row in rows if row.model == name and row.set not in forgotten]
        utility = harmonic_mean(kept) if kept else None
        gap = _difference(known[name], known.get(reference or ""))
        compared = ratios.get(reference or "", [])
        probabilities = [item.probability for item in items if item.model == name and item.set in forgotten]
        same = [item.identical_to_base for item in items if item.model == name and item.set not in forgotten]
        forgetting = _forgetting(known[name], gap)
        found.append(
            SummaryLine(
                model=name,
                utility_harmonic_mean=utility,
                forget_knowledge=known[name],
                forget_gap_to_reference=gap,
                forget_quality_ks_p=ks_p_value(own, compared) if own and compared else None,
                probability=mean(probabilities),
                truth_ratio=mean([cannot_tell(ratio) for ratio in own]),
                kept_identical=mean(same),
                score=None if utility is None or forgetting is None else harmonic_mean([utility, forgetting]),
            )
        )
    return found


def _knowledge(row: Row) -> float:
    return row.rouge_l if row.task == "generation" else row.accuracy


def _forget_knowledge(rows: Sequence[Row], model: str, forgotten: Collection[str]) -> float | None:
    return mean([_knowledge(row) for row in rows if row.model == model and row.set in forgotten])


def _forgetting(known: float | None, gap: float | None) -> float | None:
    if gap is not None:
        return 1 - abs(gap)
    return None if known is None else 1 - known


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
