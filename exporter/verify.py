"""Check every promise of an exported directory that can be checked without a GPU.

The directory is not trusted. Its ``*.py`` files are compared and never run. A model is loaded only after configuration,
index and steering file are known to be harmless. A damaged file gives a failed check, never a traceback.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mllmeraser.errors import InputError
from mllmeraser.exporter.base import read_base
from mllmeraser.exporter.checks import SCHEMA, Check
from mllmeraser.exporter.checks_shared import signature_checks
from mllmeraser.exporter.onnx.api import require_onnx
from mllmeraser.exporter.opened import Format, Opened
from mllmeraser.inference.source import resolve

_NEEDED_TO_LOAD = ("fails closed", "config", "settings", "seal", "steering file", "index")


@dataclass(frozen=True)
class Verification:
    """All checks, in the order in which they were made."""

    checks: tuple[Check, ...]
    format: Format

    @property
    def ok(self) -> bool:
        """Whether every promise is kept."""
        return all(check.ok for check in self.checks)

    def document(self) -> dict[str, object]:
        """The JSON document of ``verify --json`` (``docs/json.md``)."""
        return {"schema": SCHEMA, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def verify(directory: str | Path, base: str | Path | None = None, public_key: str | Path | None = None) -> Verification:
    """Check every promise of an exported directory that can be checked without a GPU.

    A broken promise raises nothing: its check is not ``ok``.

    Args:
        directory: what ``export``, ``export_onnx`` or ``onnx_steer`` wrote, or a copy of it.
        base: also check that every base tensor is this base's. For steered graphs, a directory of graphs: its files are
            compared; or the exported checkpoint: its configuration is compared.
        public_key: a PEM file with the signer's public key: also check the signature.

    Raises:
        InputError: there is no such directory or base, the key cannot be used, or a package of an extra is missing.

    Example::

        verification = mllmeraser.verify("steered", base="org/name")
        verification.ok, [check.name for check in verification.checks if not check.ok]
    """
    return verify_opened(Opened(Path(directory)), base, public_key)


def verify_opened(opened: Opened, base: str | Path | None = None, public_key: str | Path | None = None) -> Verification:
    """The same for a directory that the caller has opened."""
    if not opened.directory.is_dir():
        raise InputError(f"{opened.directory}: no such directory; give one that mllmeraser export made")
    key = None if public_key is None else Path(public_key)
    if opened.first_edition:
        made = "made by the first edition, whose code this version does not know; export again with the kept bundle"
        return Verification((Check("edition", False, made),), opened.format)
    checks = _of_graphs(opened, base, key) if opened.format == "onnx" else _of_checkpoint(opened, base, key)
    return Verification(tuple(checks), opened.format)


# Each format imports what it needs: torch takes seconds to import, and the packages of the extra onnx may be missing.


def _of_checkpoint(opened: Opened, base: str | Path | None, public_key: Path | None) -> list[Check]:
    from mllmeraser.exporter.checks_files import file_checks
    from mllmeraser.exporter.checks_model import model_checks

    found = None if base is None else read_base(resolve(base))
    checks = [*file_checks(opened, found), *signature_checks(opened, public_key)]
    distrusted = next((check.name for check in checks if check.name in _NEEDED_TO_LOAD and not check.ok), None)
    return [*checks, *model_checks(opened, found, distrusted)]


def _of_graphs(opened: Opened, base: str | Path | None, public_key: Path | None) -> list[Check]:
    require_onnx()
    from mllmeraser.exporter.onnx.verify import graph_checks, run_checks

    # A directory of graphs needs no config.json, which a base checkpoint must have.
    found = None if base is None else Path(base) if Path(base).is_dir() else resolve(base).path
    checks = [*graph_checks(opened, found), *signature_checks(opened, public_key)]
    distrusted = next((check.name for check in checks if not check.ok), None)
    return [*checks, *run_checks(opened, distrusted)]
