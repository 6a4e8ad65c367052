"""Records with their facts, for a person to read and correct: as lines, as a document, and as a file of records."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from mllmeraser.records.prompts import Picture
from mllmeraser.records.record import Record, subjects

SOURCES = {
    "given": "given",
    "match": "from match",
    "value": "the value itself",
    "derived": "derived",
    "none": "without a fact",
}


@dataclass(frozen=True)
class Shown:
    """The records of a file with their facts, and where these come from (a key of :data:`SOURCES` each)."""

    records: Sequence[Record]
    sources: Sequence[str]
    output: Path | None = None

    def document(self) -> dict[str, Any]:
        """The JSON of ``records --json`` (docs/json.md). It holds the texts of the records."""
        return {
            "schema": 1,
            "output": None if self.output is None else str(self.output),
            "subjects": len(subjects(self.records)),
            "sources": dict(Counter(self.sources)),
            "records": [
                {
                    "subject": record.subject,
                    "question": record.question,
                    "answer": record.answer_text,
                    "facts": record.facts,
                    "source": source,
                }
                for record, source in zip(self.records, self.sources, strict=True)
            ],
        }

    def lines(self) -> list[str]:
        """Each different question with its answer and its facts, and a line that counts them."""
        shown = dict.fromkeys(
            (
                f"{record.subject}: {_flat(record.question)} {_flat(record.answer_text)}",
                f"    {_told(record)} ({SOURCES[source]})",
            )
            for record, source in zip(self.records, self.sources, strict=True)
        )
        counted = Counter(self.sources)
        told = ", ".join(f"{counted[source]} {words}" for source, words in SOURCES.items() if counted[source])
        lines = [line for pair in shown for line in pair]
        return [*lines, f"{len(self.records)} records about {len(subjects(self.records))} subjects; facts: {told}"]


def source_of(before: Record, after: Record) -> str:
    """Where the facts of a record come from; ``before`` is the record as it was read."""
    if before.facts is not None:
        return "given" if before.facts else "none"
    if not after.facts:
        return "none"
    if before.match:
        return "match"
    return "derived" if before.task == "generation" else "value"


def as_files(records: Sequence[Record], path: Path) -> dict[Path, bytes]:
    """The files that hold these records: JSON Lines at ``path``, and ``NAME-images/`` for pictures that lie in none."""
    folder, files, lines = path.with_name(f"{path.stem}-images"), dict[Path, bytes](), []
    places: dict[str, Path] = {}
    for record in records:
        line = record.model_dump(mode="json", exclude={"image"}, exclude_defaults=True) | {"image": None}
        image = record.image
        if isinstance(image, Picture):
            if image.name not in places:
                with Image.open(BytesIO(image.data)) as opened:
                    ending = (opened.format or "png").lower()
                places[image.name] = folder / f"{len(places):05}.{ending}"
                files[places[image.name]] = image.data
            image = places[image.name]
        if isinstance(image, Path):
            line["image"] = os.path.relpath(image, path.parent)
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return files | {path: "".join(lines).encode()}


def _flat(text: str) -> str:
    return " ".join(text.split())


def _told(record: Record) -> str:
    return " | ".join(record.facts or ()) or "–"
