"""A signed export: any later change is seen, also one that makes every other hash fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("model_signing", reason="the extra 'sign' is not installed")

from builders.checkpoints import contents
from builders.signing_keys import make_key

from mllmeraser.errors import InputError, VerificationError
from mllmeraser.exporter.signing import SIGNATURE, check_signature, sign
from mllmeraser.exporter.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


@pytest.fixture
def signed(exported: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A signed export and the public key."""
    private, public = make_key(tmp_path)
    assert sign(exported, private) == exported / SIGNATURE
    return exported, public


def test_a_signed_export_verifies(signed: tuple[Path, Path]) -> None:
    check_signature(*signed)
    checks = verify(signed[0], public_key=signed[1]).checks
    assert all(check.ok for check in checks)
    assert "signature" in {check.name for check in checks}
    unasked = {check.name: check for check in verify(signed[0]).checks}["signature"]
    assert unasked.ok
    assert "nobody asked whose it is" in unasked.detail


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, Callable[[Path], None]] = {
    "a bit of a weight": lambda out: _flip(out / "mllmeraser-base-00001-of-00001.safetensors"),
    "a bit of the steering": lambda out: _flip(out / "mllmeraser-steering.safetensors"),
    "a line of code": lambda out: (out / "modeling_mllmeraser.py").write_text("print('mine')\n"),
    "a file more": lambda out: (out / "notes.txt").write_text("mine"),
    "a file less": lambda out: (out / "LICENSE").unlink(),
    "another name": lambda out: (out / "LICENSE").rename(out / "LICENCE") and None,
    "the signature gone": lambda out: (out / SIGNATURE).unlink(),
    "the signature cut": lambda out: (out / SIGNATURE).write_bytes((out / SIGNATURE).read_bytes()[:100]) and None,
    "the signature emptied": lambda out: (out / SIGNATURE).write_text("{}") and None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_after_signing_is_seen(signed: tuple[Path, Path], change: str) -> None:
    out, public = signed
    CHANGES[change](out)
    with pytest.raises(VerificationError) as caught:
        check_signature(out, public)
    assert "\n" not in str(caught.value)
    checks = {check.name: check for check in verify(out, public_key=public).checks}
    assert not checks["signature"].ok


def test_another_key_is_another_signer(signed: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        check_signature(signed[0], make_key(tmp_path, "other")[1])


def test_a_key_that_is_none_is_one_line(exported: Path, tmp_path: Path) -> None:
    before = contents(exported)
    (tmp_path / "no key").write_text("hello")
    for key in (tmp_path / "nowhere", tmp_path / "no key"):
        with pytest.raises(InputError) as caught:
            sign(exported, key)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError):
            check_signature(exported, key)
    assert contents(exported) == before
