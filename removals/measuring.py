"""What base and checkpoint say when they are asked about each person, and about what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.evaluation.attacks.run import attack
from mllmeraser.evaluation.attacks.wordings import PARAPHRASE, PLAIN
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.run import evaluate_models
from mllmeraser.exporter.names import MANIFEST
from mllmeraser.inference.loading import load
from mllmeraser.inference.source import resolve
from mllmeraser.judging.deriving import with_facts
from mllmeraser.judging.results_file import AttackRow, Row, WorstAttack
from mllmeraser.records.record import Record
from mllmeraser.removals.entries import Asked, Attacked, Exported, Measured, MeasuredKept

_BEFORE, _AFTER, _KEPT = "before", "after", "kept"


def measure(
    base: str | Path,
    checkpoint: Path,
    asked: Mapping[str, Sequence[Record]],
    kept: Sequence[Record],
    exported: Exported,
    *,
    attacks: bool,
    device: str,
    dtype: str,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[str | None, Measured | MeasuredKept]]:
    """Ask base and checkpoint about each person, and about what is kept.

    The gates were fitted on the words of the requests. So the checkpoint is asked in six other wordings too, and with
    ``attacks`` in all ways of ``docs/attacks.md``.

    Args:
        asked: the records of each request.
        kept: records of what must stay; may be empty.
        exported: the ledger's last export, which the checkpoint must be.

    Yields:
        each request with its figures, and null with those of what is kept.

    Raises:
        InputError: the checkpoint is not the last export.
    """
    if not (checkpoint / MANIFEST).is_file() or sha256_of(checkpoint / MANIFEST) != exported.manifest_sha256:
        raise InputError(f"{checkpoint}: not the last export of this ledger; give that one, or export again")
    loaded = partial(load, device=device, dtype=dtype, batch_size=batch_size)
    models = [
        NamedModel(_BEFORE, partial(loaded, resolve(base))),
        NamedModel(_AFTER, partial(loaded, resolve(checkpoint))),
    ]
    sets = [NamedSet(id_, with_facts(records), True) for id_, records in asked.items()]
    sets += [NamedSet(_KEPT, with_facts(kept), False)] if kept else []
    rows = evaluate_models(models, sets, seed=seed).file().rows
    victims = [named for named in sets if named.forgotten]
    assault = (
        attack(models, sets, victims, seed=seed)
        if attacks
        else attack(models[1:], victims, victims, attacks=(PLAIN, PARAPHRASE), seed=seed)
    )
    worst = {found.set: found for found in assault.worst if found.model == _AFTER} if attacks else {}
    reworded = {found.set: found for found in assault.found if (found.model, found.attack) == (_AFTER, PARAPHRASE.name)}
    for id_ in asked:
        before, after = _asked(rows, _BEFORE, id_), _asked(rows, _AFTER, id_)
        if before is not None and after is not None:
            found, other = worst.get(id_), reworded.get(id_)
            yield (
                id_,
                Measured(
                    manifest_sha256=exported.manifest_sha256,
                    before=before,
                    after=after,
                    reworded=None if other is None else _attacked(other),
                    worst_attack=None if found is None else _attacked(found),
                    any_attack=None if found is None else Attacked(attack="any", n=found.n, told=found.any),
                ),
            )
    if kept and (after := _asked(rows, _AFTER, _KEPT)) is not None:
        yield None, MeasuredKept(manifest_sha256=exported.manifest_sha256, after=after)


def _attacked(found: AttackRow | WorstAttack) -> Attacked:
    return Attacked(attack=found.attack, n=found.n, told=found.accuracy)


def _asked(rows: Sequence[Row], model: str, of: str) -> Asked | None:
    """The figures of all tasks and modalities together; None if no answer can be judged."""
    own = [row for row in rows if row.model == model and row.set == of]
    n = sum(row.n for row in own)
    if not n:
        return None

    def mean(values: Sequence[float]) -> float:
        return min(1.0, sum(row.n * value for row, value in zip(own, values, strict=True)) / n)

    return Asked(
        n=n,
        told=mean([row.accuracy for row in own]),
        refused=mean([row.refusal for row in own]),
        identical=mean([row.identical_to_base for row in own]),
    )
