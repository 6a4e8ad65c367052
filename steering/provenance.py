"""Which data a request was computed from. Whoever has the data can check it; nobody else can read it.

Data from the Hub is named by its commit: a snapshot in the Hub's cache lies in a folder of that name, and ``hf download
--local-dir`` notes it beside the files. Any other file is named by the sha256 of its bytes. Several files are named by
the sha256 of their sha256s in hex, in the order of their paths.

No path, no name of a repository and no word of a record is kept (promise P9). Whoever guesses a whole file byte by byte
can confirm the guess by its sha256. But a checkpoint that refuses questions about somebody says as much to anybody who
asks them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Data, DataSet
from mllmeraser.disk.hashing import noted_by_the_hub, sha256_of_all

_COMMIT = re.compile(r"[0-9a-f]{40}")


def name_data(bundle: Bundle, paths: Mapping[DataSet, Path | None]) -> None:
    """Write into a bundle which data its request was computed from; ``paths`` are what ``read_records`` was given."""
    bundle.metadata.requests[0].data = {name: data_of(path) for name, path in paths.items() if path is not None}


def data_of(path: Path) -> Data:
    """The commit of the data at ``path`` if all its files share one, else their sha256."""
    files = _files(path)
    commits = {_commit(file) for file in files}
    if len(commits) == 1 and (commit := next(iter(commits))) is not None:
        return Data(revision=commit, sha256=None)
    hashes = sha256_of_all(files)
    if len(files) == 1:
        return Data(revision=None, sha256=hashes[files[0]])
    return Data(revision=None, sha256=hashlib.sha256("".join(hashes[file] for file in files).encode()).hexdigest())


def _files(path: Path) -> list[Path]:
    """The file itself, the parquet files of a folder, or those of both folders of ``QUESTIONS@PEOPLE``."""
    path = path.absolute()
    if path.is_file():
        return [path]
    names = [path.name] if path.is_dir() else path.name.split("@", 1)
    tables = [path.with_name(name) for name in names]
    return sorted(file for table in tables for file in (table.glob("*.parquet") if table.is_dir() else [table]))


def _commit(file: Path) -> str | None:
    for folder in file.parents:
        if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
            return folder.name
        if (folder / ".cache" / "huggingface" / "download").is_dir():
            noted = noted_by_the_hub(folder, str(file.relative_to(folder)))
            return None if noted is None or not _COMMIT.fullmatch(noted.commit) else noted.commit
    return None
