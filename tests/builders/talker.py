"""A random LLaVA on disk that can be asked, people to ask it about, and refusals that its tokenizer has words for."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from builders import processors, tiny
from builders.checkpoints import contents, write
from PIL import Image
from transformers import LlavaProcessor

from mllmeraser.inference.saving import save_base
from mllmeraser.records.prompts import Prompt

REFUSAL = "I cannot help with that request."
JOBS, CITIES = ("baker", "pilot", "nurse", "sailor"), ("Graz", "Lyon", "Turin", "Porto")
COUNT = ("one", "two", "three", "four", "five", "six", "seven", "eight")
SPOKEN = (
    "I cannot help with that request . ? : USER ASSISTANT What does person do Who is this Where live in a job city "
    "tell me the of please"
)
WORDS = dict.fromkeys([*SPOKEN.split(), *JOBS, *CITIES, *COUNT])


# The paper's rule, which most tests of a computation are about.
ADDED = {"gate_scope": "prompt", "edit": "add", "augment": False}


def make_base(directory: Path, seed: int = 0) -> Path:
    """Write a checkpoint with random weights; two of one seed are equal."""
    return write(directory, _saved(seed))


@functools.cache
def _saved(seed: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        save_base(tiny.model("llava", seed), Path(folder))
        processor().save_pretrained(folder)
        return contents(Path(folder))


def processor() -> LlavaProcessor:
    """A tokenizer of whole words, pictures of 16 pixels, and a chat template."""
    return processors.speaking(list(WORDS))


def picture(number: int) -> Image.Image:
    """A plain picture; each number has its own colour."""
    return Image.new("RGB", (16, 16), (37 * number % 256, 101 * number % 256, 173 * number % 256))


def prompts() -> list[Prompt]:
    """Of mixed lengths, with and without a picture."""
    return [
        Prompt("What does person one do?", None),
        Prompt("Who is this?", picture(1)),
        Prompt("tell me please the job of person two in the city of Graz", None),
        Prompt("Where does this person live? tell me the city please.", picture(2)),
        Prompt("Who?", None),
        Prompt("What is the job of this person?", picture(3)),
    ]


def write_records(path: Path, records: list[dict[str, object]]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_people(path: Path, people: range) -> Path:
    """For each person a picture with two questions, and two questions in words, beside ``path``."""
    records: list[dict[str, object]] = []
    for number in people:
        name, subject, image = COUNT[number], f"subject-{number}", f"{path.stem}-{number}.png"
        picture(number).save(path.parent / image)
        records += [
            _record(subject, image, "What does this person do?", JOBS[number % 4]),
            _record(subject, image, "Where does this person live?", CITIES[number % 4]),
            _record(subject, None, f"What does person {name} do?", JOBS[number % 4]),
            _record(subject, None, f"Where does person {name} live?", CITIES[number % 4]),
        ]
    return write_records(path, records)


def write_refusals(folder: Path) -> tuple[Path, Path]:
    """Recall records, and erasure records whose answers are refusals, for a model that has none of its own."""
    asked = [f"tell me the job of person {name}" for name in COUNT[:4]]
    recall = [_record(f"recall-{i}", None, text, "baker") for i, text in enumerate(asked)]
    erasure = [_record(f"erasure-{i}", None, f"please {text}", REFUSAL) for i, text in enumerate(asked)]
    return write_records(folder / "recall.jsonl", recall), write_records(folder / "erasure.jsonl", erasure)


def _record(subject: str, image: str | None, question: str, answer: str) -> dict[str, object]:
    return {
        "subject": subject,
        "image": image,
        "question": question,
        "prompt": question,
        "answer": answer,
        "task": "generation",
    }
