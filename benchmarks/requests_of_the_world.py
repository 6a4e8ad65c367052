"""Every person of the demo's world asks to be forgotten: what the n-th request costs, and what all of them do together.

    python benchmarks/requests_of_the_world.py DIRECTORY [--people 92] [--counts 1,10,92] [--withdrawn 5]

The requests live in a ledger. Each is computed from the records of its person and from celebrities, common knowledge
and strangers; none needs another's data. The script then exports the first n of them, for each count, and prints the
bytes of the steering, the share of questions about the forgotten that are still told (held-out pictures and wordings),
the share of other questions whose replies are token-identical to the base's (celebrities and common knowledge that no
gate was fitted on, and the people who have not asked), and the seconds of each computation. At last some requests are
withdrawn: the others' replies must stay as they are, and the withdrawn people's must be the base's.

A run that is cut off goes on where it was. The recipe is fixed but for the thresholds, so that a hundred fits end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from mllmeraser.demo.corpus import stranger_question
from mllmeraser.demo.data import balanced, common_knowledge, everything, write_sets
from mllmeraser.demo.people import Person, world
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.evaluation.answering import answer
from mllmeraser.exporter.directory import export
from mllmeraser.inference.loading import load
from mllmeraser.judging.answers import verdict
from mllmeraser.modeling_patches.format_mllmeraser import STEERING_FILE
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.removals.ledger import Ledger

RECIPE = {
    "layers": "4,7",
    "gate_layer": "4",
    "null_space": "soft:30",
    "bandwidth": "1",
    "gate_fit": "positions",
    "strength": "1.0",
}
ROUNDS = 2  # questions about each fact of a person, per task and modality


def main() -> None:
    """Write the world, compute what waits, export and ask."""
    parser = argparse.ArgumentParser(description="Every person of the demo's world asks to be forgotten.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--people", type=int, default=len(world().people))
    parser.add_argument("--counts", default="1,10,92")
    parser.add_argument("--withdrawn", type=int, default=5)
    parser.add_argument("--questions", type=int, default=12, help="about each person")
    options = parser.parse_args()
    logging.disable_progress_bar()
    folder: Path = options.directory
    people = world().people[: options.people]
    if not (folder / "base").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_world(folder, people, options.questions)
        shutil.copytree(CHECKPOINT, folder / "base")
    ledger, ids = receive(folder, people)
    spent = compute(ledger, folder, ids)
    bundles = [ledger.folder.bundle(id_) for id_ in ids]
    base = Asked(folder, folder / "base")
    print(
        f"{'requests':>8} {'steering, bytes':>16} {'each further':>13} {'told, %':>8} {'worst':>6} {'kept same, %':>13}"
    )
    first = 0
    for count in map(int, options.counts.split(",")):
        target = folder / f"out-{count}"
        export(folder / "base", bundles[:count], target, overwrite=True, common=True)
        size = (target / STEERING_FILE).stat().st_size
        first = first or size
        asked = Asked(folder, target)
        told = [asked.told(person) for person in people[:count]]
        kept = asked.same_as(base, ["celebrity", "common", *(person.subject for person in people[count:])])
        each = 0 if count == 1 else (size - first) // (count - 1)
        mean = 100 * sum(told) / len(told)
        print(
            f"{count:>8} {size:>16,} {each:>14,} {mean:>8.1f} {100 * max(told):>6.0f} {100 * kept:>13.2f}", flush=True
        )
    if spent:
        print(
            f"seconds of a computation: first {spent[0]:.0f}, median of the others {statistics.median(spent[1:]):.0f}"
        )
    withdraw(ledger, folder, people, ids, options.withdrawn, base)


def write_world(folder: Path, people: Sequence[Person], questions: int) -> None:
    """The records of each person, those that must stay, and what is asked at the end."""
    rng = random.Random("every person")
    stars = {fit: [star for star in world().celebrities if star.fit is fit] for fit in (True, False)}
    kept = [question for star in stars[True] for question in everything(rng, star, False)] + common_knowledge(rng, True)
    kept += [stranger_question(rng, False, in_picture=n % 2 == 0) for n in range(400)]
    sets = {"retain": kept}
    sets["celebrity"], sets["common"] = balanced(rng, stars[False], 16, unseen=True), common_knowledge(rng, False)
    for person in people:
        sets[f"{person.subject}-request"] = [q for _ in range(ROUNDS) for q in everything(rng, person, False)]
        sets[person.subject] = balanced(rng, [person], max(1, questions // 6), unseen=True)
    write_sets(folder / "data", sets)
    (folder / "recipe.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in RECIPE.items()))


def receive(folder: Path, people: Sequence[Person]) -> tuple[Ledger, list[str]]:
    """The ledger with a request of each person, in their order."""
    ledger = Ledger(folder / "requests")
    known = len(ledger.state().requests) if (folder / "requests").exists() else 0
    for person in people[known:]:
        ledger.add(folder / "data" / f"{person.subject}-request.jsonl", "2026-11-02", name=person.name)
    return ledger, list(ledger.state().requests)


def compute(ledger: Ledger, folder: Path, ids: Sequence[str]) -> list[float]:
    """Compute what waits, in one run, whose passes of what is kept are made once; the seconds of each request."""
    waiting = [id_ for id_ in ids if ledger.state().requests[id_].next == "compute"]
    before = time.time()
    if waiting:
        data = folder / "data" / "retain.jsonl"
        told = ledger.compute(folder / "base", data, recipe=folder / "recipe.toml", dtype="float32")
        if told.facts["failed"]:
            print(*told.words, sep="\n", flush=True)
    ends = [before, *(ledger.folder.bundle(id_).stat().st_mtime for id_ in waiting)]
    return [end - start for start, end in itertools.pairwise(ends)]


class Asked:
    """The replies of one checkpoint to all questions, asked set by set and once."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.data, self.model = folder / "data", load(checkpoint, dtype="float32")
        self.found: dict[str, tuple[list[Record], list[str]]] = {}

    def replies(self, name: str) -> tuple[list[Record], list[str]]:
        """The records of a set and the replies to them."""
        if name not in self.found:
            records = read_records(self.data / f"{name}.jsonl")
            self.found[name] = records, [reply.text for reply in answer(self.model, records)]
        return self.found[name]

    def told(self, person: Person) -> float:
        """The share of questions about a person that are answered."""
        records, replies = self.replies(person.subject)
        return sum(
            verdict(reply, record).degree == "told" for record, reply in zip(records, replies, strict=True)
        ) / len(records)

    def same_as(self, base: Asked, names: Sequence[str]) -> float:
        """The share of replies that are the base's."""
        pairs = [pair for name in names for pair in zip(self.replies(name)[1], base.replies(name)[1], strict=True)]
        return sum(one == other for one, other in pairs) / len(pairs)


def withdraw(
    ledger: Ledger, folder: Path, people: Sequence[Person], ids: Sequence[str], count: int, base: Asked
) -> None:
    """Export all that are active, withdraw some, and export again."""
    ledger.export(folder / "base", folder / "before", overwrite=True)
    gone = range(0, len(ids), max(1, len(ids) // count))[:count]
    for number in gone:
        ledger.withdraw(ids[number], "person")
    ledger.export(folder / "base", folder / "after", overwrite=True)
    before, after = Asked(folder, folder / "before"), Asked(folder, folder / "after")
    others = [person.subject for number, person in enumerate(people) if number not in gone]
    same = after.same_as(before, others)
    back = after.same_as(base, [people[number].subject for number in gone])
    print(f"{count} withdrawn: the others' replies {100 * same:.2f} % as before, theirs {100 * back:.1f} % the base's")


if __name__ == "__main__":
    main()
