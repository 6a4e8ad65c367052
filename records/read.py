"""Read records: JSON Lines, one record a line, or the parquet files of a published benchmark.

Image paths in a JSON Lines file are relative to the file. Unknown keys are ignored. A bad line is an error that names
file, line and key.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from mllmeraser.errors import InputError, clipped
from mllmeraser.records import clear, mllmu, umu
from mllmeraser.records.parquet import Table, open_table
from mllmeraser.records.record import Record


def read_records(path: Path) -> list[Record]:
    """Read the records of a JSON Lines file, or of a benchmark's folder of parquet files.

    Image paths come back absolute, and the images exist.

    Raises:
        InputError: the file is missing, empty or not text, or a line is no record; the message names file, line, key.

    Example::

        forget = read_records(Path("forget.jsonl"))
        test = read_records(Path("MLLMU-Bench/Test_Set@forget_5"))
    """
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
    return [_read_line(path, number, line) for number, line in lines]


def _read_line(path: Path, number: int, line: bytes) -> Record:
    where = f"{path}, line {number}"
    try:
        record = Record.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {key + ': ' if key else ''}{message}") from None
    if record.image is None:
        return record
    image = path.parent / str(record.image)
    if not image.is_file():
        mend = "; write folders with slashes, a/b.png" if "\\" in str(record.image) else ""
        raise InputError(f"{where}: image: {clipped(str(record.image))} does not exist beside the file{mend}")
    return record.model_copy(update={"image": image.resolve()})


def is_benchmark(path: Path) -> bool:
    """Whether a path names parquet files, not JSON Lines: a folder, a parquet file, or ``QUESTIONS@PEOPLE``."""
    return path.is_dir() or path.suffix == ".parquet" or ("@" in path.name and not path.exists())


def read_benchmark(path: Path) -> list[Record]:
    """The records of a configuration.

    ``Test_Set@forget_5`` keeps only the people of the folder ``forget_5``, which lies beside ``Test_Set``.

    Raises:
        InputError: there is no parquet file, it is not of MLLMU-Bench, UMU-Bench or CLEAR, or no record is left.
    """
    folder, _, people = path.name.partition("@") if not path.exists() else (path.name, "", "")
    records = _questions(open_table(path.with_name(folder)))
    if people:
        wanted = _people(path.with_name(people))
        records = [record for record in records if record.subject in wanted]
    if not records:
        raise InputError(f"{path}: holds no record")
    return records


def _people(path: Path) -> set[str]:
    return {row.text("ID") for row in open_table(path).rows()}


def _questions(table: Table) -> list[Record]:
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
