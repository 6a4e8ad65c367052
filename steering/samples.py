"""Records of what is asked and what is answered: JSON Lines, one question a line.

Image paths are relative to the file. A record may carry the exact ``prompt`` of the user's turn; otherwise the turn is
worded here as in the ``mllmeraser`` protocol (MLLMU-Bench's own sentences without "accurately", zero shots).
Unknown keys are kept in the file and ignored here. A bad line is an error naming file, line and key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from mllmeraser.errors import InputError
from mllmeraser.inference.prompts import AnyPicture, Picture, Prompt
from mllmeraser.steering.on_demand import OnDemand

Task = Literal["generation", "classification", "cloze"]
Modality = Literal["image_text", "text"]


def _picture(given: object) -> object:
    """A record names a file; in memory it may also hold the picture itself."""
    if isinstance(given, str):
        return Path(given)
    if given is None or isinstance(given, Path | Picture | Image.Image):
        return given
    raise ValueError("neither a path nor null")


class Sample(BaseModel):
    """One question about one subject, as a user would ask it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    subject: str = Field(min_length=1)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    task: Task
    image: Annotated[AnyPicture | None, PlainValidator(_picture)] = None
    options: dict[str, str] | None = None
    prompt: str | None = Field(default=None, min_length=1)
    match: tuple[str, ...] = ()
    # For metrics only (docs/evaluation.md): the answer in other words, wrong answers, and what links the two forms of
    # one fact, in words and in a picture.
    paraphrase: str | None = Field(default=None, min_length=1)
    perturbed: tuple[str, ...] = ()
    fact: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_match_is_a_list_of_one(cls, record: object) -> object:
        if isinstance(record, dict) and isinstance(record.get("match"), str):
            return {**record, "match": [record["match"]]}
        return record

    @model_validator(mode="after")
    def _options_hold_the_answer(self) -> Sample:
        if self.task == "classification":
            if not self.options:
                raise ValueError("options: a classification record needs the options to choose from")
            if self.answer not in self.options and self.answer not in self.options.values():
                raise ValueError("answer: neither a key nor a value of options")
        return self

    @property
    def modality(self) -> Modality:
        """``image_text`` when a picture belongs to the question, else ``text``."""
        return "image_text" if self.image else "text"

    @property
    def correct_option(self) -> str:
        """The key of the right option of a classification record."""
        options = self.options or {}
        return self.answer if self.answer in options else next(k for k, v in options.items() if v == self.answer)

    @property
    def answer_text(self) -> str:
        """The answer in words: for a classification record answered by key, the option's text."""
        return (self.options or {}).get(self.answer, self.answer) if self.task == "classification" else self.answer

    @property
    def accepted(self) -> tuple[str, ...]:
        """The strings of which one must stand in the reply for it to count as right."""
        return self.match or (self.answer_text,)

    @property
    def user_turn(self) -> Prompt:
        """The user's turn: ``prompt`` word for word if given, else question and options in the protocol's wording."""
        return Prompt(self.prompt or protocol_wording(self), self.image)


def options_listed(sample: Sample) -> str:
    """The options of a classification record, one a line."""
    return "\n".join(f"{key}: {text}" for key, text in (sample.options or {}).items())


def protocol_wording(sample: Sample, how: str = "in one sentence in ENGLISH") -> str:
    """The wording of the ``mllmeraser`` protocol (MLLMU-Bench, arXiv 2410.22108, without "accurately")."""
    if sample.task == "classification":
        listed = options_listed(sample)
        return f"{sample.question}\n{listed}\nJust give ONE letter representing the answer directly."
    if sample.task == "cloze":
        blanked = sample.question.replace("__", "[Blank]")
        return f"{blanked}\nPlease **ONLY** provide the correct answer that should replace the [Blank]."
    return f"{sample.question}\nAnswer the question based on your trained knowledge {how}."


def read_samples(path: Path) -> list[Sample]:
    """Read a JSON Lines file of records, or the parquet files of a benchmark (:mod:`mllmeraser.records`).

    Image paths come back absolute and are known to exist.

    Raises:
        InputError: the file is missing, empty or not text, or a line is no record; the message names file, line, key.
    """
    return list(stream_samples(path))


def stream_samples(path: Path) -> Sequence[Sample]:
    """As :func:`read_samples`, all records checked at once, but each made when it is asked for: a large retain set then
    takes the room of its text, a fifth of that of its records. (Those of a benchmark are made at once: their pictures,
    which are most of it, are shared.)

    Raises:
        InputError: as :func:`read_samples`.
    """
    from mllmeraser.records.benchmarks import is_benchmark, read_benchmark  # which make records of their own

    if is_benchmark(path):
        return read_benchmark(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a JSON Lines file of records (docs/records.md)")
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    # At line feeds only: a string may hold U+2028, which ends no line.
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: holds no record; every line must be one JSON object (docs/records.md)")
    for number, line in lines:
        _read_line(path, number, line)
    return OnDemand(len(lines), lambda i: _read_line(path, *lines[i]))


def _read_line(path: Path, number: int, line: bytes) -> Sample:
    where = f"{path}, line {number}"
    try:
        sample = Sample.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {key + ': ' if key else ''}{message}") from None
    if sample.image is None:
        return sample
    image = path.parent / str(sample.image)
    if not image.is_file():
        raise InputError(f"{where}: image: {sample.image} does not exist beside the file")
    return sample.model_copy(update={"image": image.resolve()})


def subjects(samples: Iterable[Sample]) -> list[str]:
    """The subjects asked about, in the order of their first question."""
    return list(dict.fromkeys(sample.subject for sample in samples))


def refuse_overlap(forget: Iterable[Sample], retain: Iterable[Sample]) -> None:
    """Nobody can be forgotten and retained at once.

    Raises:
        InputError: a subject stands in both sets. The subject itself is not printed in full: a request is sensitive.
    """
    shared = sorted(set(subjects(forget)) & set(subjects(retain)))
    if shared:
        raise InputError(
            f"{len(shared)} subject(s) stand in both the forget and the retain set, the first is {shared[0]!r}: "
            "remove their records from one of the two files"
        )


def by_subject(samples: Iterable[Sample]) -> Iterator[tuple[str, list[Sample]]]:
    """Samples grouped by subject, in order of first appearance."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.subject, []).append(sample)
    yield from groups.items()


def turns(samples: Sequence[Sample]) -> Sequence[Prompt]:
    """The user's turns of samples."""
    return OnDemand(len(samples), lambda i: samples[i].user_turn)
