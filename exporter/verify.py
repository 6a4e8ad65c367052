"""Does an exported directory keep every promise that can be checked without a GPU?

The directory is not trusted: its ``*.py`` files are compared, never run; a model is only loaded once configuration,
index and steering file are known to be harmless; a damaged file gives a failed check and never a traceback.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mllmeraser.errors import InputError, VerificationError
from mllmeraser.exporter.base import read_base
from mllmeraser.exporter.checks import SCHEMA, Check
from mllmeraser.exporter.checks_files import file_checks
from mllmeraser.exporter.checks_model import model_checks
from mllmeraser.exporter.signing import check_signature
from mllmeraser.inference.source import Source

_NEEDED_TO_LOAD = ("fails closed", "config", "seal", "steering file", "index")


@dataclass(frozen=True)
class Verification:
    """All checks, in the order they were made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every promise is kept."""
        return all(check.ok for check in self.checks)

    def document(self) -> dict[str, object]:
        """The JSON document of ``verify --json`` (``docs/json.md``)."""
        return {"schema": SCHEMA, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def verify(directory: Path, base: Path | None = None, public_key: Path | None = None) -> Verification:
    """Check an exported directory.

    Args:
        base: also check that every base shard and tensor is this base's.
        public_key: also check the signature ``model.sig``, with the signer's key.

    Raises:
        InputError: ``directory`` is no directory, ``base`` is not a usable base checkpoint, or ``public_key`` no key.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give one that mllmeraser export made")
    found = None if base is None else read_base(Source(base))
    checks = file_checks(directory, found)
    if public_key is not None:
        checks.append(_signature(directory, public_key))
    distrusted = next((check.name for check in checks if check.name in _NEEDED_TO_LOAD and not check.ok), None)
    return Verification((*checks, *model_checks(directory, found, distrusted)))


def _signature(directory: Path, public_key: Path) -> Check:
    try:
        check_signature(directory, public_key)
    except VerificationError as error:
        return Check("signature", False, str(error))
    return Check("signature", True, f"every file is what the holder of {public_key.name} signed")
