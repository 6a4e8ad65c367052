"""Runs every attack on every model and set, and finds the one that gets the most right answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllmeraser.console import track
from mllmeraser.errors import InputError
from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene
from mllmeraser.evaluation.attacks.catalogue import ATTACKS
from mllmeraser.evaluation.attacks.kept import KEPT
from mllmeraser.evaluation.attacks.wordings import PLAIN
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.protocols import PROTOCOLS, Protocol
from mllmeraser.judging.answers import Judge, can_judge
from mllmeraser.judging.intervals import by_subject, wilson
from mllmeraser.judging.results_file import AttackNotRun, AttackRow, Intervals, WorstAttack
from mllmeraser.records.record import Record


@dataclass(frozen=True)
class Assault:
    """What every attack found, the worst attack of each model and set, and the attacks that were not run."""

    found: list[AttackRow]
    worst: list[WorstAttack]
    left: list[AttackNotRun]

    def parts(self) -> dict[str, Any]:
        """The parts that ``evaluate --attacks`` adds to the results document (docs/json.md)."""
        return {"attacks": self.found, "attacks_worst": self.worst, "attacks_not_run": self.left}


def sets_to_attack(sets: Sequence[NamedSet], names: Sequence[str]) -> list[NamedSet]:
    """The sets of these names; without names, all sets.

    Raises:
        InputError: no set has one of the names.
    """
    known = {named.name: named for named in sets}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"--attack-set {unknown[0]}: no such set; one of {', '.join(known)}")
    return [known[name] for name in names] or list(sets)


def attack(
    models: Sequence[NamedModel],
    sets: Sequence[NamedSet],
    victims: Sequence[NamedSet],
    *,
    attacks: Sequence[Attack] = ATTACKS,
    protocol: Protocol = PROTOCOLS["mllmeraser"],
    max_new_tokens: int = 50,
    seed: int = 0,
    judge: Judge = "facts",
    reference: str | None = None,
) -> Assault:
    """Run every attack on every model and every set of ``victims``, on the records that the judge can know.

    The attacker also knows the records of all ``sets`` about other subjects. The first model is the base. Kept
    questions beside forgotten ones are asked of all kept ``sets``, whatever the victims.

    Args:
        reference: the name of the model that never saw the forgotten. What attacks get of it was guessed, or stands in
            the questions.

    Raises:
        InputError: the first attack is not the plain question.
    """
    if not attacks or attacks[0] is not PLAIN:
        raise InputError("the first attack must be the plain question: the others are compared with it")
    found: list[AttackRow] = []
    worst: list[WorstAttack] = []
    by_any: dict[tuple[str, str], list[bool]] = {}
    left: dict[tuple[str, str], AttackNotRun] = {}
    for named in victims:
        if not any(can_judge(record, judge) for record in named.records):
            for each in attacks:
                why = "it has no answer that the judge can know"
                left[named.name, each.name] = AttackNotRun(set=named.name, attack=each.name, reason=why)
    sets, victims = (_judged(some, judge) for some in (sets, victims))
    said_by_base: dict[tuple[str, str], Sequence[Sequence[str]]] = {}
    attacked = {named.name for named in victims}
    for named_model in models:
        checkpoint = named_model.load()
        is_base = named_model is models[0]
        for named in [*victims, *(other for other in sets if other.name not in attacked)]:
            tried = [each for each in attacks if (not named.forgotten if each.of_kept else named.name in attacked)]
            if not tried:
                continue
            scene = Scene(
                checkpoint,
                named_model.load,
                named.records,
                _about_others(named, sets),
                protocol,
                max_new_tokens,
                seed,
                _about_others(named, [other for other in sets if other.forgotten]),
                None if is_base else models[0].load,
                judge,
            )
            readings: dict[str, list[Reading]] = {}
            for each in track(tried, f"{named_model.name}: attacks on {named.name}"):
                if (named.name, each.name) in left:
                    continue
                try:
                    readings[each.name] = each.run(scene)
                except NotApplicableError as why:
                    left[named.name, each.name] = AttackNotRun(set=named.name, attack=each.name, reason=str(why))
                    continue
                if each.if_base_follows and is_base:
                    told, before = _share(readings[each.name][0]), _share(readings[PLAIN.name][0])
                    if told < before / 2:
                        reason = f"under this attack the base gives {told:.0%} of the answers, without it {before:.0%}"
                        left[named.name, each.name] = AttackNotRun(set=named.name, attack=each.name, reason=reason)
                        del readings[each.name]
            for each in tried:
                for reading in readings.get(each.name, []):
                    of_base = said_by_base.setdefault((named.name, each.name), reading.said)
                    found.append(_found(named_model.name, named, each, reading, seed, of_base))
            if named.name in attacked:
                replies = {each: readings[each.name][0] for each in tried if each.in_any and each.name in readings}
                by_any[named_model.name, named.name] = got = _got_by_any(replies)
                worst.append(_worst(named_model.name, named, replies, got, seed))
        del checkpoint, scene
    if reference is not None:
        worst = [_beyond(entry, by_any, reference, _subjects_of(victims, entry.set), seed) for entry in worst]
    return Assault(found, worst, list(left.values()))


def _judged(sets: Sequence[NamedSet], judge: Judge) -> list[NamedSet]:
    """The sets with the records that the judge can know, without sets that have none."""
    kept = [replace(named, records=[each for each in named.records if can_judge(each, judge)]) for named in sets]
    return [named for named in kept if named.records]


def _about_others(named: NamedSet, sets: Sequence[NamedSet]) -> list[Record]:
    asked = {record.person for record in named.records}
    return [
        record for other in sets for record in other.records if other.name != named.name and record.person not in asked
    ]


def _found(
    model: str,
    named: NamedSet,
    by: Attack,
    reading: Reading,
    seed: int,
    said_by_base: Sequence[Sequence[str]] = (),
) -> AttackRow:
    known = [verdict for verdict in reading.verdicts if verdict is not None]
    values = [float(verdict.correct) for verdict in known]
    who = [record.person for record, verdict in zip(named.records, reading.verdicts, strict=True) if verdict]
    refusal = math.fsum(verdict.refusal for verdict in known) / len(known) if by.reads_replies else None
    return AttackRow(
        model=model,
        set=named.name,
        attack=by.name,
        budget=by.budget,
        layer=reading.layer,
        n=len(known),
        accuracy=_share(reading),
        refusal=refusal,
        identical_to_base=_identical(reading, reading.of_base or said_by_base),
        interval=interval(values, who, seed),
        chance=reading.chance,
    )


def _got_by_any(replies: dict[Attack, Reading]) -> list[bool]:
    """For each record, whether some attack gets its answer."""
    verdicts = zip(*(reading.verdicts for reading in replies.values()), strict=True)
    return [any(verdict is not None and verdict.correct for verdict in of_record) for of_record in verdicts]


def _subjects_of(sets: Sequence[NamedSet], name: str) -> list[str]:
    return next([record.person for record in named.records] for named in sets if named.name == name)


def _worst(model: str, named: NamedSet, replies: dict[Attack, Reading], got: list[bool], seed: int) -> WorstAttack:
    """The attack that gets the largest share of the records it applies to, and the share that any attack gets."""
    worst = max(replies, key=lambda each: _share(replies[each]))
    found = _found(model, named, worst, replies[worst], seed)
    return WorstAttack(
        model=model,
        set=named.name,
        n=len(got),
        plain=_share(replies[PLAIN]),
        attack=worst.name,
        accuracy=found.accuracy,
        interval=found.interval,
        any=sum(got) / len(got),
        any_interval=interval([float(each) for each in got], [record.person for record in named.records], seed),
    )


def _beyond(
    entry: WorstAttack, by_any: dict[tuple[str, str], list[bool]], reference: str, who: Sequence[str], seed: int
) -> WorstAttack:
    """The entry, compared with what attacks get of the reference, record by record."""
    if entry.model == reference:
        return entry
    own, other = by_any[entry.model, entry.set], by_any[reference, entry.set]
    differences = [float(a) - float(b) for a, b in zip(own, other, strict=True)]
    return entry.model_copy(
        update={
            "beyond_reference": math.fsum(differences) / len(differences),
            "beyond_interval": by_subject(differences, who, seed=seed),
        }
    )


def _share(reading: Reading) -> float:
    known = [verdict.correct for verdict in reading.verdicts if verdict is not None]
    return sum(known) / len(known)


def _identical(reading: Reading, before: Sequence[Sequence[str]]) -> float | None:
    """The share of the records asked whose replies are all the base's, word for word; null where none was read."""
    same = [own == of_base for own, of_base in zip(reading.said, before, strict=True) if own] if before else []
    return sum(same) / len(same) if same else None


def interval(values: Sequence[float], who: Sequence[str], seed: int) -> tuple[float, float]:
    """The wider end, on either side, of Wilson's interval and of the bootstrap interval over subjects.

    Only the bootstrap accounts for a subject's records being alike. But if none of n records is right, its interval is
    only 0, and Wilson's is not.
    """
    independent = wilson(math.fsum(values) / len(values), len(values))
    return Intervals(wilson=independent, by_subject=by_subject(values, who, seed=seed)).widest


def attack_lines(assault: Assault) -> list[str]:
    """The worst case beside the plain question, and kept questions beside forgotten ones, for a person."""
    lines = ["under attack, right answers given away in %:"]
    for worst in assault.worst:
        beyond = ""
        if worst.beyond_reference is not None and worst.beyond_interval is not None:
            low, high = worst.beyond_interval
            beyond = (
                f", beyond the reference {100 * worst.beyond_reference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            )
        assert worst.any_interval is not None
        low, high = worst.any_interval
        lines.append(
            f"  {worst.model} on {worst.set}: by any attack {100 * worst.any:.1f} ({100 * low:.1f} to {100 * high:.1f})"
            f"{beyond}; plain {100 * worst.plain:.1f}, worst {100 * worst.accuracy:.1f} ({worst.attack})"
        )
    names = [each.name for each in KEPT]
    if kept := [row for row in assault.found if row.attack in names]:
        lines.append("kept questions beside forgotten ones, in %:")
    for row in kept:
        assert row.refusal is not None and row.identical_to_base is not None
        lines.append(
            f"  {row.model} on {row.set}: {row.attack}: right {100 * row.accuracy:.1f}, "
            f"refused {100 * row.refusal:.1f}, as the base {100 * row.identical_to_base:.1f}"
        )
    lines += [f"  not run on {left.set}: {left.attack}: {left.reason}" for left in assault.left]
    return lines
