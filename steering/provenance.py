"""Which data a request was computed from.

Data from the Hub is named by its commit: a snapshot in the Hub's cache lies in a folder of that name, and ``hf download
--local-dir`` notes it beside the files. The bundle keeps it. Any other file is named by the sha256 of its bytes.
Several files are named by the sha256 of their sha256s in hex, in the order of their paths.

No sha256 of records goes into a bundle (promise P9). Records follow a few forms, so that whoever guesses a name can
make the file and compare. ``compute`` prints it instead, for whoever keeps the request.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from mllmeraser.bundle.metadata import Data, DataSet
from mllmeraser.disk.hashing import noted_by_the_hub, sha256_of_all
from mllmeraser.steering.compute import Computation

_COMMIT = re.compile(r"[0-9a-f]{40}")


def name_data(computation: Computation, paths: Mapping[DataSet, Path | None]) -> None:
    """Note which data a request was computed from; ``paths`` are what ``read_records`` was given.

    Commits go into the bundle, and digests only into what ``compute`` prints.
    """
    given = {name: path for name, path in paths.items() if path is not None}
    commits = {name: commit_of(path) for name, path in given.items()}
    computation.bundle.metadata.requests[0].data = {
        name: Data(revision=commit) for name, commit in commits.items() if commit is not None
    }
    computation.records.update({name: digest_of(path) for name, path in given.items()})


def commit_of(path: Path) -> str | None:
    """The commit on the Hub that all files of the data share; null where there is none."""
    commits = {_commit(file) for file in _files(path)}
    return next(iter(commits)) if len(commits) == 1 else None


def digest_of(path: Path) -> str:
    """The sha256 of the data: of its only file, or of the sha256s of its files."""
    files = _files(path)
    hashes = sha256_of_all(files)
    if len(files) == 1:
        return hashes[files[0]]
    return hashlib.sha256("".join(hashes[file] for file in files).encode()).hexdigest()


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
