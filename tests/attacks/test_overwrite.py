"""P1. What is replaced: only what a run of ours wrote, and never between two renames."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.checkpoints import contents, make_bundle

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.errors import InputError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source


def _listing(out: Path, files: object) -> None:
    manifest = json.loads((out / "mllmeraser.json").read_text())
    (out / "mllmeraser.json").write_bytes(sealed({**manifest, "files": files}))


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a file": lambda out: (out / "thesis.tex").write_text("mine"),
    "a folder": lambda out: (out / "photos").mkdir() or (out / "photos" / "1.png").write_bytes(b"mine"),
    "a link": lambda out: (out / "link").symlink_to(out.parent),
    "a repository": lambda out: (out / ".git").mkdir() or (out / ".git" / "HEAD").write_text("mine"),
    "no manifest": lambda out: (out / "mllmeraser.json").unlink(),
    "a damaged manifest": lambda out: (out / "mllmeraser.json").write_bytes(b"[" * 100_000),
    "a manifest that lists nothing": lambda out: _listing(out, {}),
    "a manifest that lists a number": lambda out: _listing(out, 7),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_directory_with_anything_else_in_it_is_not_replaced(exported: Path, base: Path, what: str) -> None:
    FOREIGN[what](exported)
    before = contents(exported)
    with pytest.raises(InputError, match="remove the directory yourself") as caught:
        export(Source(base), [make_bundle(base, "other")], exported, overwrite=True)
    assert "\n" not in str(caught.value)
    assert contents(exported) == before
    assert sorted(path.name for path in exported.parent.iterdir()) == ["base", "out"]


def test_a_home_full_of_things_is_not_replaced(base: Path, tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "mine").touch()
    with pytest.raises(InputError, match=r"holds no mllmeraser\.json"):
        export(Source(base), [make_bundle(base)], tmp_path / "things", overwrite=True)
    assert (tmp_path / "things" / "mine").exists()


def test_what_is_put_there_meanwhile_is_not_replaced(
    exported: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mllmeraser.exporter import directory

    build = directory._build

    def meanwhile(*arguments: object) -> None:
        build(*arguments)  # type: ignore[arg-type]
        (exported / "thesis.tex").write_text("mine")

    monkeypatch.setattr(directory, "_build", meanwhile)
    with pytest.raises(InputError, match=r"thesis\.tex"):
        export(Source(base), [make_bundle(base, "other")], exported, overwrite=True)
    assert (exported / "thesis.tex").read_text() == "mine"
    assert sorted(path.name for path in exported.parent.iterdir()) == ["base", "out"]


def test_what_a_signature_and_the_hubs_client_leave_goes_with_it(exported: Path, base: Path) -> None:
    (exported / "model.sig").touch()
    (exported / ".cache" / "huggingface").mkdir(parents=True)
    export(Source(base), [make_bundle(base, "other")], exported, overwrite=True)
    assert verify(exported, base).ok


KILLED = """
import os, signal, sys
from pathlib import Path
from mllmeraser.exporter.directory import export
rename = Path.rename
def struck(self, target):
    found = rename(self, target)
    if str(target).endswith(".former"):
        os.kill(os.getpid(), signal.SIGKILL)
    return found
Path.rename = struck
export(sys.argv[1], [sys.argv[2]], sys.argv[3], overwrite=True)
"""


@pytest.mark.parametrize("again", ["plain", "overwrite", "dry run"])
def test_killed_between_two_renames_the_former_directory_is_found_again(
    exported: Path, base: Path, again: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, bundle = contents(exported), make_bundle(base, "other")
    save_bundle(bundle, exported.parent / "other.safetensors")
    script = [sys.executable, "-c", KILLED, base, exported.parent / "other.safetensors", exported]
    assert subprocess.run(script, env={**os.environ}).returncode == -signal.SIGKILL
    assert not exported.exists()
    if again == "overwrite":
        export(Source(base), [bundle], exported, overwrite=True)
        assert verify(exported, base).ok
        assert contents(exported) != before
    else:
        with pytest.raises(InputError, match="--overwrite"):
            export(Source(base), [bundle], exported, dry_run=again == "dry run")
        assert contents(exported) == before
    told = " ".join(capsys.readouterr().err.split())
    assert "had moved this directory aside; it is back" in told
    assert sorted(path.name for path in exported.parent.iterdir()) == ["base", "other.safetensors", "out"]
