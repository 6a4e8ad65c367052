"""The folder of a ledger: what lies where, who may read it, and how a person's files come and go.

::

    ledger.jsonl  ledger.head   the entries, without names (chain.py)
    signed/N/                   the head at entry N, and its signature
    bundles/ID.safetensors      what compute made of a request
    bundles/kept-….safetensors  the landmarks of what must stay, which the requests on one base share
    private/ID/                 key.json, records.jsonl, pictures, claim.json: everything that leads to a person
    adding/ID/                  the same, before its entry is written
    work/                       passes of a computation that is not finished

Everything is for its owner only. A person's folder is filled aside and renamed once its entry stands in the ledger; it
is removed after the entry that says so. A run that is killed between the two leaves what the next one finishes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError, VerificationError
from mllmeraser.judging.results_file import contents, parse
from mllmeraser.records.pictures import content
from mllmeraser.records.prompts import Picture
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.records.show import as_files
from mllmeraser.removals.chain import HEAD, LEDGER, PRIVATE

KEY, RECORDS, CLAIM = "key.json", "records.jsonl", "claim.json"
_OWNER = 0o700


class Key(BaseModel):
    """What links an id to a person: ``key.json``. Without its ``salt`` nobody can test whose records an id stands for.

    ``name`` and ``reference`` (a case number, for example) are the controller's own, and may be null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str | None
    reference: str | None
    salt: str

    def commitment(self, records: str) -> str:
        """The HMAC of a digest of records under the salt."""
        return hmac.new(bytes.fromhex(self.salt), records.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Folder:
    """The paths of a ledger's folder."""

    root: Path

    def bundle(self, request: str) -> Path:
        """The bundle of a request."""
        return self.root / "bundles" / f"{request}.safetensors"

    def landmarks(self, base: str) -> Path:
        """The landmarks of what must stay, of the base whose ``config.json`` has this sha256."""
        return self.root / "bundles" / f"kept-{base[:16]}.safetensors"

    def private(self, request: str) -> Path:
        """Everything that leads to the person."""
        return self.root / "private" / request

    def adding(self, request: str) -> Path:
        """The same, before the request's entry is written."""
        return self.root / "adding" / request

    def records(self, request: str) -> Path:
        """The request's records."""
        return self.private(request) / RECORDS

    @property
    def work(self) -> Path:
        """Passes of a computation that is not finished; they tell names."""
        return self.root / "work"

    def make(self) -> None:
        """Make what is missing of the folder, for its owner only.

        Raises:
            InputError: the folder that it lies in does not exist, or it is full of other things.
        """
        if not self.root.exists() and not self.root.absolute().parent.is_dir():
            raise InputError(f"{self.root}: the folder {self.root.absolute().parent} does not exist; create it first")
        if self.root.is_dir() and not (self.root / HEAD).exists() and any(_foreign(self.root)):
            raise InputError(f"{self.root}: is not empty and holds no ledger; give a new folder with --ledger")
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root}: is a file; give a folder with --ledger")
        for path in (self.root, *(self.root / name for name in ("bundles", "private", "adding", "signed"))):
            if not path.is_dir():
                path.mkdir(mode=_OWNER)

    def require(self) -> None:
        """Check that there is a ledger.

        Raises:
            InputError: there is none.
        """
        if not (self.root / HEAD).exists() and not (self.root / LEDGER).exists():
            raise InputError(
                f"{self.root}: no ledger here; begin one with: mllmeraser requests add RECORDS --received DATE "
                f"--ledger {self.root}"
            )

    def key(self, request: str) -> Key | None:
        """The key of a request; None once it is erased.

        Raises:
            InputError: it cannot be read.
        """
        path = self.private(request) / KEY
        if not path.exists():
            return None
        wrote = "the file as mllmeraser wrote it"
        return parse(contents(path, wrote), Key, str(path), wrote)

    def read(self, request: str, commitment: str) -> list[Record]:
        """The records of a request, as they were received.

        Raises:
            InputError: they are erased.
            VerificationError: they were changed.
        """
        key = self.key(request)
        if key is None:
            raise InputError(f"{request}: its records are erased; nothing can be computed from them")
        records = read_records(self.records(request))
        if key.commitment(digest_of(records)) != commitment:
            raise VerificationError(f"{self.records(request)}: not the records that were received; restore them")
        return records

    def fill(self, key: Key, records: list[Record], claim: Path | None) -> None:
        """Write the private files of a new request aside, through to the disk."""
        place = self.adding(key.id)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=_OWNER)
        if any(isinstance(record.image, Path) for record in records):
            (place / "images").mkdir(mode=_OWNER)
        files = as_files(_with_pictures(records, place / "images"), place / RECORDS)
        files[place / KEY] = f"{key.model_dump_json(indent=2)}\n".encode()
        if claim is not None:
            files[place / CLAIM] = claim.read_bytes()
        for path, data in files.items():
            if not path.parent.is_dir():
                path.parent.mkdir(mode=_OWNER)
            write_atomically(path, data, PRIVATE)

    def publish(self, request: str) -> None:
        """Put the private files of a new request, which stands in the ledger now, in their place."""
        self.adding(request).rename(self.private(request))

    def tidy(self, known: Collection[str], erased: Collection[str], unneeded: Collection[str]) -> None:
        """Finish what a killed run began.

        Args:
            known: the requests of the ledger.
            erased: those whose link to a person is erased.
            unneeded: those whose bundle is erased, too.
        """
        for left in sorted((self.root / "adding").iterdir()):
            if left.name in known and left.name not in erased and not self.private(left.name).exists():
                self.publish(left.name)
            else:
                shutil.rmtree(left)
        for request in erased:
            if self.private(request).exists():
                shutil.rmtree(self.private(request))
                shutil.rmtree(self.work, ignore_errors=True)  # its passes may be of these records
        for request in unneeded:
            self.bundle(request).unlink(missing_ok=True)


def new_id(known: Collection[str]) -> str:
    """A random id that no request has."""
    while (request := f"r-{secrets.token_hex(5)}") in known:
        pass
    return request


def new_key(request: str, name: str | None, reference: str | None) -> Key:
    """A key with a salt of its own."""
    return Key(id=request, name=name, reference=reference, salt=secrets.token_hex(32))


def digest_of(records: list[Record]) -> str:
    """The sha256 of the records and of what their pictures show, wherever they lie."""
    seen: dict[object, str] = {}
    rows: list[list[object]] = []
    for record in records:
        image, shows = record.image, None
        if image is not None:
            place = image if isinstance(image, Path) else id(image)
            shows = seen.setdefault(place, "") or content(image, record.user_turn.named)
            seen[place] = shows
        rows.append([record.model_dump(mode="json", exclude={"image"}, exclude_defaults=True), shows])
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _foreign(root: Path) -> list[Path]:
    ours = {"bundles", "private", "adding", "signed", "work"}
    return [path for path in root.iterdir() if path.name not in ours and not path.name.startswith(".ledger")]


def _with_pictures(records: list[Record], folder: Path) -> list[Record]:
    """The records with a copy of each picture in this folder; its name there says nothing."""
    places: dict[Path, Path] = {}
    copied = []
    for record in records:
        image = record.image
        if isinstance(image, Path):
            if image not in places:
                places[image] = folder / f"{len(places):05}{image.suffix.lower()}"
                write_atomically(places[image], image.read_bytes(), PRIVATE)
            image = places[image]
        elif image is not None and not isinstance(image, Picture):
            raise InputError("a record in memory holds a picture; save it beside the file of records")
        copied.append(record.model_copy(update={"image": image}))
    return copied


def sha256_or_none(path: Path) -> str | None:
    """The sha256 of a file; None if it is not there."""
    return sha256_of(path) if path.is_file() else None


def modes_too_open(root: Path) -> list[Path]:
    """The folders of a ledger that others can look into."""
    if os.name != "posix":
        return []
    folders = (root, *(root / name for name in ("bundles", "private", "adding", "signed", "work")))
    return [path for path in folders if path.is_dir() and path.stat().st_mode & 0o077]
