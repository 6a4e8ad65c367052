"""The models and sets of an evaluation, by name, from the arguments of the command line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mllmeraser.errors import InputError
from mllmeraser.evaluation.journal import model_digest
from mllmeraser.evaluation.prepared import NamedAnswers, read_answers
from mllmeraser.inference.loading import BATCH_SIZE, Checkpoint, load
from mllmeraser.inference.source import Source, resolve
from mllmeraser.inference.usable import check_model, is_steered
from mllmeraser.judging.deriving import with_facts
from mllmeraser.judging.results_file import about_the_forgotten
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record

_NAMED = re.compile(r"(?P<name>[\w.+-]+)=(?P<path>.+)", re.S)


@dataclass(frozen=True)
class NamedModel:
    """A model and the name that its rows carry. It is loaded when its turn comes and released afterwards.

    ``digest`` identifies the model's bytes, so that its replies can be kept and reused. Without it they are not kept.
    """

    name: str
    load: Callable[[], Checkpoint]
    digest: Callable[[], str] | None = None


@dataclass(frozen=True)
class NamedSet:
    """Records and the name that their rows carry.

    ``about_the_forgotten`` says whether they ask about the people to forget. By default the set's name decides
    (:func:`mllmeraser.judging.results_file.about_the_forgotten`).
    """

    name: str
    records: Sequence[Record]
    about_the_forgotten: bool | None = None

    @property
    def forgotten(self) -> bool:
        """Whether the model should no longer know the answers."""
        if self.about_the_forgotten is not None:
            return self.about_the_forgotten
        return about_the_forgotten(self.name)


def models_from(
    arguments: Sequence[str], *, device: str = "cpu", dtype: str = "auto", batch_size: int = BATCH_SIZE
) -> list[NamedModel | NamedAnswers]:
    """The models of ``NAME=SOURCE`` or ``SOURCE``. Without a name the last part of the source is the name.

    A source is a directory, a Hub id, or a JSON Lines file of answers given elsewhere
    (:mod:`mllmeraser.evaluation.prepared`). All sources are looked up and fetched at once, so that a mistyped one fails
    before hours of work.

    Raises:
        InputError: two models have the same name, or a source is no usable checkpoint.
    """
    named = [(name or _last_part(source), source) for name, source in map(_split, arguments)]
    refuse_repeated("model", [name for name, _ in named])
    loaded = partial(load, device=device, dtype=dtype, batch_size=batch_size)
    return [
        read_answers(name, Path(source)) if source.endswith(".jsonl") else _model(name, source, loaded, dtype)
        for name, source in named
    ]


def _model(name: str, source: str, loaded: Callable[[Source], Checkpoint], dtype: str) -> NamedModel:
    found = resolve(source)
    if not is_steered(found):  # an export's own loader says what is wrong with it
        check_model(found)
    return NamedModel(name, partial(loaded, found), partial(model_digest, found.path, dtype))


def sets_from(arguments: Sequence[str]) -> list[NamedSet]:
    """The sets of ``NAME=FILE.jsonl`` or ``FILE.jsonl``. Without a name the file's name without its ending is the name.

    Every record comes with its facts.

    Raises:
        InputError: two sets have the same name, a file is given twice, or a file does not hold records.
    """
    named = [(name or Path(path).stem, path) for name, path in map(_split, arguments)]
    refuse_repeated("set", [name for name, _ in named])
    repeated = [path for path, times in Counter(Path(path).resolve() for _, path in named).items() if times > 1]
    if repeated:
        raise InputError(f"--data {repeated[0].name}: the file is given under two names; give it once")
    return [NamedSet(name, with_facts(read_records(Path(path)))) for name, path in named]


def refuse_repeated(what: str, names: Iterable[str]) -> None:
    """Refuse two models or sets of one name: rows are told apart by name.

    Raises:
        InputError: two names are equal.
    """
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise InputError(f"two {what}s are called {repeated[0]!r}; name them apart with NAME=PATH")


def _split(argument: str) -> tuple[str | None, str]:
    """Name and path. An existing path may hold an equals sign: it is not split."""
    match = None if Path(argument).exists() else _NAMED.fullmatch(argument)
    return (match["name"], match["path"]) if match else (None, argument)


def _last_part(source: str) -> str:
    if Path(source).is_dir():
        return Path(source).resolve().name
    if source.endswith(".jsonl"):
        return Path(source).stem
    return source.partition("@")[0].rstrip("/").rpartition("/")[2] or source
