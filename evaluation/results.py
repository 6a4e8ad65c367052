"""Turns scored replies into rows, one for each model, set, task and modality."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mllmeraser.evaluation.gates import gate_quality, gates
from mllmeraser.evaluation.items import Item
from mllmeraser.evaluation.journal import item_line
from mllmeraser.evaluation.modalities import modality_gaps
from mllmeraser.evaluation.summary import summary
from mllmeraser.evaluation.tiers import Tier
from mllmeraser.judging.answers import Judge
from mllmeraser.judging.intervals import by_subject, wilson
from mllmeraser.judging.means import mean
from mllmeraser.judging.metrics import prefers_truth
from mllmeraser.judging.results_file import (
    OUTCOMES,
    Choice,
    CrossCheck,
    Intervals,
    Outcomes,
    ResultsFile,
    Row,
    RowIntervals,
    Unjudged,
)
from mllmeraser.records.same import normal

TASKS = ("generation", "cloze", "classification")
MODALITIES = ("image_text", "text")


@dataclass(frozen=True)
class Results:
    """All scored replies of an evaluation. The rows are made from them and hold no text of any record.

    Replies to records that the judge cannot know stand in no row. :meth:`unjudged` counts them apart.
    """

    models: tuple[str, ...]
    sets: tuple[str, ...]
    protocol: str
    items: tuple[Item, ...]
    seed: int = 0
    forgotten: tuple[str, ...] = ()  # the sets about the people to forget
    reference: str | None = None  # the model that never saw these people
    tier: Tier | None = None
    judge: Judge = "facts"
    cross_checks: tuple[CrossCheck, ...] = ()

    @property
    def judged(self) -> list[Item]:
        """The replies that the judge can know."""
        return [item for item in self.items if item.told != "unknowable"]

    def rows(self) -> list[Row]:
        """The rows, ordered by model, set, task and modality; a combination without records has no row."""
        return [_row(items, self.seed) for items in self._cells(self.judged)]

    def unjudged(self) -> list[Unjudged]:
        """What the models said where the judge cannot know, in the order of the rows."""
        return [
            Unjudged(
                model=items[0].model,
                set=items[0].set,
                task=items[0].task,
                modality=items[0].modality,
                n=len(items),
                refusal=sum(item.refusal for item in items) / len(items),
                identical_to_base=sum(item.identical_to_base for item in items) / len(items),
            )
            for items in self._cells([item for item in self.items if item.told == "unknowable"])
        ]

    def _cells(self, items: Sequence[Item]) -> list[list[Item]]:
        cells: dict[tuple[str, str, str, str], list[Item]] = {}
        for item in items:
            cells.setdefault((item.model, item.set, item.task, item.modality), []).append(item)
        order = [(m, s, t, x) for m in self.models for s in self.sets for t in TASKS for x in MODALITIES]
        return [cells[key] for key in order if key in cells]

    def file(self, **parts: Any) -> ResultsFile:
        """The results document (docs/json.md): numbers and names only, no text of any record.

        ``parts`` are the parts that are not made from replies.
        """
        rows = self.rows()
        return ResultsFile(
            protocol=self.protocol,
            judge=self.judge,
            base=self.models[0],
            reference=self.reference,
            tier=self.tier,
            forgotten=list(self.forgotten),
            rows=rows,
            unjudged=self.unjudged(),
            cross_checks=list(self.cross_checks),
            gates=gates(self.items),
            gate_quality=gate_quality(self.items, self.forgotten),
            modalities=modality_gaps(self.judged, self.forgotten),
            summary=summary(rows, self.items, self.forgotten, self.reference),
            **parts,
        )

    def item_lines(self) -> Iterator[str]:
        """One line of JSON for each reply, with its newline. No other output holds questions and replies."""
        yield from map(item_line, self.items)


# These are means of fractions, not shares of items, so they have no binomial interval.
_NO_SHARES = ("rouge_l", "rouge_l_recall", "bleu", "probability", "truth_ratio")


def _row(items: Sequence[Item], seed: int) -> Row:
    first, n = items[0], len(items)
    measures: dict[str, list[float | None]] = {
        "accuracy": [item.correct for item in items],
        "rouge_l": [item.rouge_l for item in items],
        "refusal": [item.refusal for item in items],
        "identical_to_base": [item.identical_to_base for item in items],
        "rouge_l_recall": [item.rouge_l_recall for item in items],
        "bleu": [item.bleu for item in items],
        "accuracy_substring": [item.substring for item in items],
        "probability": [item.probability for item in items],
        "truth_ratio": [None if item.truth_ratio is None else prefers_truth(item.truth_ratio) for item in items],
    }
    means: dict[str, Any] = {name: mean(values) for name, values in measures.items()}
    intervals: dict[str, Any] = {name: _intervals(name, values, items, seed) for name, values in measures.items()}
    return Row(
        model=first.model,
        set=first.set,
        task=first.task,
        modality=first.modality,
        n=n,
        subjects=len({normal(item.subject) for item in items}),
        **means,
        intervals=RowIntervals(**intervals),
        partly=None if first.task == "classification" else sum(item.told == "partly" for item in items) / n,
        share=None if first.task == "classification" else math.fsum(item.share for item in items) / n,
        outcomes=Outcomes(**{outcome: sum(item.outcome == outcome for item in items) / n for outcome in OUTCOMES}),
        choice=_choice(items),
    )


def _intervals(name: str, values: Sequence[float | None], items: Sequence[Item], seed: int) -> Intervals | None:
    """The intervals over the items that have a value; null if none has."""
    known = [
        (float(value), normal(item.subject)) for value, item in zip(values, items, strict=True) if value is not None
    ]
    if not known:
        return None
    numbers, who = [value for value, _ in known], [subject for _, subject in known]
    return Intervals(
        wilson=None if name in _NO_SHARES else wilson(math.fsum(numbers) / len(numbers), len(numbers)),
        by_subject=by_subject(numbers, who, seed=seed),
    )


def _choice(items: Sequence[Item]) -> Choice | None:
    """Other readings of multiple choice. Those of letters are means over the records whose prompt lists letters."""
    choices = [item.choice for item in items if item.choice]
    if not choices:
        return None
    n = len(choices)
    return Choice(
        accuracy_per_byte=sum(choice.per_byte for choice in choices) / n,
        accuracy_named=sum(choice.named for choice in choices) / n,
        accuracy_first_character=mean([choice.first_character for choice in choices]),
        accuracy_first_alphanumeric=mean([choice.first_alphanumeric for choice in choices]),
    )
