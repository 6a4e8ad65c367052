"""The parquet files of one configuration of a data set, row by row, whatever the order of columns and fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mllmeraser.errors import InputError
from mllmeraser.records.prompts import Picture
from mllmeraser.records.record import Record

ROWS = 16  # read at a time: a row holds a picture, or a dozen


@dataclass(frozen=True)
class Table:
    """The files of a configuration, in order, and the columns all of them have."""

    files: tuple[Path, ...]
    columns: frozenset[str]

    @property
    def config(self) -> str:
        """The configuration: the name of the folder the files lie in."""
        return self.files[0].resolve().parent.name

    def rows(self) -> Iterator[Row]:
        """Every row."""
        import pyarrow.parquet

        for path in self.files:
            number = 0
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=ROWS):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(path, number, values)


@dataclass(frozen=True)
class Row:
    """One row: where it stands, for messages, and what it holds."""

    path: Path
    number: int
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The row as an error names it."""
        return f"{self.path}, row {self.number}"

    def record(self, what: str, **fields: Any) -> Record:
        """A record made from this row.

        Raises:
            InputError: the row does not make one; ``what`` says which part of it.
        """
        try:
            return Record(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise InputError(f"{self.where}, {what}: {key + ': ' if key else ''}{message}") from None

    def text(self, column: str) -> str:
        """A string of this row.

        Raises:
            InputError: it is missing.
        """
        value = self.values.get(column)
        if not isinstance(value, str):
            raise InputError(f"{self.where}: {column} is {value!r}, not a string")
        return value

    def picture(self, stored: Any, mark: str) -> Picture:
        """A stored picture, ``struct{bytes, path}``; ``mark`` tells it from the others of this configuration.

        Raises:
            InputError: its bytes are not stored.
        """
        if not isinstance(stored, dict) or not isinstance(stored.get("bytes"), bytes):
            raise InputError(f"{self.where}: the picture {mark} is not stored in the file")
        return Picture(stored["bytes"], f"{self.path.resolve().parent.name}/{self.path.name}: {mark}")


def open_table(path: Path) -> Table:
    """A parquet file, or all that lie in a folder.

    Raises:
        InputError: there is none, pyarrow is not installed, or a file is not parquet or has columns of its own.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: parquet files need an extra: pip install 'mllmeraser[benchmarks]'") from None
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no parquet file; give the folder of one configuration, such as MLLMU-Bench/forget_5")
    columns = []
    for file in files:
        try:
            columns.append(frozenset(pyarrow.parquet.read_schema(file).names))
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{file}: not a parquet file ({' '.join(str(error).split())})") from None
    if len(set(columns)) > 1:
        raise InputError(f"{path}: its parquet files have different columns; give the folder of one configuration")
    return Table(tuple(files), columns[0])
