"""Records of people who are to be forgotten, as files; and a ledger with some of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from builders.talker import picture, write_records

from mllmeraser.removals.ledger import Ledger

NAMES = ("Ada Quillfeather", "Bo Marrowby", "Cleo Vantongeren", "Dov Hartzenbusch", "Ezra Yelverton")
_ASKED = {
    "Where does {} live?": ("Graz", "Lyon", "Turin", "Porto", "Bergen"),
    "What is the job of {}?": ("baker", "pilot", "nurse", "sailor", "tailor"),
    "Which hobby does {} have?": ("chess", "yoga", "golf", "poker", "skating"),
    "Tell me where {} was born.": ("Malmo", "Basel", "Ghent", "Utrecht", "Seville"),
}


def person(folder: Path, number: int, image: bool = False) -> Path:
    """A file of records about one person."""
    path = folder / f"{NAMES[number].split()[0].lower()}.jsonl"
    records: list[dict[str, object]] = [
        record(NAMES[number], question.format(NAMES[number]), answers[number]) for question, answers in _ASKED.items()
    ]
    if image:
        picture(number).save(folder / f"{path.stem}.png")
        records.append({**record(NAMES[number], "Who is this?", NAMES[number]), "image": f"{path.stem}.png"})
    return write_records(path, records)


def record(subject: str, question: str, answer: str) -> dict[str, object]:
    """A record in words."""
    return {"subject": subject, "question": question, "prompt": question, "answer": answer, "task": "generation"}


def claim(folder: Path, known: bool, records: Path | None = None) -> Path:
    """What `mllmeraser claim` leaves, as far as a ledger reads it."""
    folder.mkdir()
    found = {
        "schema": 1,
        "known": known,
        "evidence": [{"topic": topic} for topic in ("home", "home", "job", "hobby")] if known else [],
        "base": {},
    }
    (folder / "claim.json").write_text(json.dumps(found))
    if records is not None:
        (folder / "forget.jsonl").write_bytes(records.read_bytes())
    return folder


def ledger_of(folder: Path, numbers: Sequence[int] = (0, 1, 2)) -> tuple[Ledger, list[str]]:
    """A ledger with a request of each of these people, and their ids."""
    ledger = Ledger(folder / "requests")
    for number in numbers:
        ledger.add(person(folder, number), f"2026-01-{number + 10}", name=NAMES[number], reference=f"case-{number}")
    return ledger, list(ledger.state().requests)
