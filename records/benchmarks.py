"""Which benchmark a configuration is of, by the columns of its files."""

from __future__ import annotations

from pathlib import Path

from mllmeraser.errors import InputError
from mllmeraser.records import clear, mllmu, umu
from mllmeraser.records.parquet import Table, open_table
from mllmeraser.steering.samples import Sample


def is_benchmark(path: Path) -> bool:
    """Whether a path names parquet files rather than JSON Lines: a folder, a parquet file, or PEOPLE of a folder."""
    return path.is_dir() or path.suffix == ".parquet" or ("@" in path.name and not path.exists())


def read_benchmark(path: Path) -> list[Sample]:
    """The records of a configuration; ``Test_Set@forget_5`` are those of the people in the folder ``forget_5`` beside.

    Raises:
        InputError: there are no parquet files, or not those of MLLMU-Bench, UMU-Bench or CLEAR; or no record is left.
    """
    folder, _, people = path.name.partition("@") if not path.exists() else (path.name, "", "")
    samples = _questions(open_table(path.with_name(folder)))
    if people:
        wanted = _people(path.with_name(people))
        samples = [sample for sample in samples if sample.subject in wanted]
    if not samples:
        raise InputError(f"{path}: holds no record")
    return samples


def _people(path: Path) -> set[str]:
    return {row.text("ID") for row in open_table(path).rows()}


def _questions(table: Table) -> list[Sample]:
    for columns, read in (
        (mllmu.QUESTIONS, mllmu.questions),
        (mllmu.TRAINING, mllmu.training_text),
        (umu.QUESTIONS, umu.questions),
        (clear.CAPTIONS, clear.questions),
        (clear.REAL, clear.questions),
    ):
        if columns <= table.columns:
            return read(table)
    raise InputError(
        f"{table.files[0]}: not of MLLMU-Bench, UMU-Bench or CLEAR: its columns are {', '.join(sorted(table.columns))}"
    )
