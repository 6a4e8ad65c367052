"""The parquet files of one configuration of a data set, row by row; columns and fields may come in any order."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mllmeraser.errors import InputError
from mllmeraser.records.prompts import Picture
from mllmeraser.records.record import Record

ROWS = 16  # read at a time: a row may hold a dozen pictures


@dataclass(frozen=True)
class Table:
    """The files of a configuration, in order, and the columns that all of them have."""

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
    """One row: what it holds, and where it stands (for messages)."""

    path: Path
    number: int
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The row as an error names it."""
        return f"{self.path}, row {self.number}"

    def record(self, what: str, **fields: Any) -> Record:
        """Make a record from a part of this row.

        Raises:
            InputError: the part makes no record; the message names it by ``what``.
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

    def part(self, column: str) -> Any:
        """A column that holds dictionaries and lists, or the text of one in JSON or in Python; null stays null.

        Raises:
            InputError: the text is neither.
        """
        value = self.values.get(column)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            raise InputError(f"{self.where}: {column}: neither JSON nor a Python dictionary") from None

    def picture(self, stored: Any, mark: str) -> Picture:
        """A stored picture, ``struct{bytes, path}``; ``mark`` tells it from the other pictures of the configuration.

        Raises:
            InputError: its bytes are not stored.
        """
        if not isinstance(stored, dict) or not isinstance(stored.get("bytes"), bytes):
            raise InputError(f"{self.where}: the picture {mark} is not stored in the file")
        return Picture(stored["bytes"], f"{self.path.resolve().parent.name}/{self.path.name}: {mark}")


def open_table(path: Path) -> Table:
    """Open a parquet file, or all parquet files in a folder.

    Raises:
        InputError: there is no file, pyarrow is not installed, a file is not parquet, or the files' columns differ.
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
