"""The checks of every exported directory, whatever its format: its files against the manifest and the signature."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mllmeraser.bundle.metadata import Metadata, RemovalRequest
from mllmeraser.errors import VerificationError
from mllmeraser.exporter.checks import Check, CheckFailed, run
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.names import LEFT_BY_OTHERS, MANIFEST, SIGNATURE
from mllmeraser.exporter.opened import Opened, is_hashed
from mllmeraser.exporter.signing import check_signature, read_signature


def shared_checks(opened: Opened, compared: Collection[str] = ()) -> list[Check]:
    """The checks ``manifest``, ``files`` and ``unlisted files``.

    Args:
        compared: the files that the check ``base`` compares with the base's. The manifest may omit their sha256.
    """
    return [
        run("manifest", lambda: _manifest(opened)),
        *_files(opened, compared),
        run("unlisted files", lambda: _unlisted(opened)),
    ]


def signature_checks(opened: Opened, public_key: Path | None) -> list[Check]:
    """The check ``signature``, if there is a signature or a key is given. Without a key it tells damage only.

    Raises:
        InputError: the extra ``sign`` is not installed, or the key cannot be used.
    """
    if public_key is None and not (opened.directory / SIGNATURE).exists():
        return []
    try:
        if public_key is None:
            read_signature(opened.directory)
            return [Check("signature", True, f"{SIGNATURE} is whole; nobody asked whose it is: give --public-key")]
        check_signature(opened.directory, public_key)
    except VerificationError as error:
        return [Check("signature", False, str(error))]
    return [Check("signature", True, f"every file is what the holder of {public_key.name} signed")]


def refusing_requests(metadata: Metadata) -> list[RemovalRequest]:
    """The requests of a bundle that seal, and refused by what the bundle says of its calibration.

    A push leaves much of what it moves: the first word of a true answer may stand before its refusal.
    """
    refused = float(metadata.method.calibration.get("refused") or 0)
    return list(metadata.requests) if metadata.edit == "seal" and refused >= 0.5 else []


def _manifest(opened: Opened) -> str:
    manifest, provenance = opened.manifest, opened.provenance
    if opened.content(MANIFEST) != sealed(manifest):
        raise CheckFailed(f"{MANIFEST} was changed: its own sha256 does not fit")
    return f"schema 1, made with mllmeraser {provenance.tool.version}, {len(manifest['files'])} files"


def _files(opened: Opened, compared: Collection[str]) -> list[Check]:
    """The check ``files``, after one failed check for each file that differs from the manifest."""
    failed: list[Check] = []

    def every_file() -> str:
        files = opened.manifest["files"]
        # A file of another size differs; it need not be read.
        sound = {name for name, entry in files.items() if opened.size(name) == entry["bytes"]}
        unhashed = {name for name, entry in files.items() if not is_hashed(entry)}
        found = opened.sha256(sound - unhashed)
        by_base = unhashed & set(compared) & sound
        for name in sorted(files.keys() - by_base):
            check = run(f"file {name}", partial(_compare, opened.size(name), files[name], found.get(name)))
            failed.extend([] if check.ok else [check])
        if failed:
            raise CheckFailed(f"{len(failed)} of {len(files)} files are not what {MANIFEST} says")
        rest = f", and {len(by_base)} are compared with the base's" if by_base else ""
        return f"{len(files) - len(by_base)} files have the sha256 of {MANIFEST}{rest}"

    overall = run("files", every_file)
    return [*failed, overall]


def _compare(size: int | None, entry: dict[str, Any], found: str | None) -> str:
    if size is None:
        raise CheckFailed("missing")
    if not is_hashed(entry) and size == entry["bytes"]:
        raise CheckFailed("not hashed: give --base to compare it, or export again without --hash later")
    if found is None:
        raise CheckFailed(f"{size:,} bytes, the manifest says {entry['bytes']:,}")
    if found != entry["sha256"]:
        raise CheckFailed(f"sha256 {found}, the manifest says {entry['sha256']}")
    return found


def _unlisted(opened: Opened) -> str:
    listed = {MANIFEST, *opened.manifest["files"]}
    top = [path for path in opened.directory.iterdir() if path.name not in LEFT_BY_OTHERS]
    if extra := sorted(name for path in top for name in _beside(path, path.name, listed)):
        raise CheckFailed(f"not in {MANIFEST}: {', '.join(extra)}")
    return f"nothing lies beside the files of {MANIFEST}"


def _beside(path: Path, name: str, listed: Collection[str]) -> Iterator[str]:
    """The unlisted files at this path; a folder without a listed file counts as one."""
    if path.is_dir() and any(entry.startswith(f"{name}/") for entry in listed):
        for inner in path.iterdir():
            yield from _beside(inner, f"{name}/{inner.name}", listed)
    elif name not in listed:
        yield name
