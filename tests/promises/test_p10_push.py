"""P10. Push: a dry run lists files and sizes; private by default; one commit; the remote sha256 compared afterwards;
licence and gate carried over. By the command, the real client, and a Hub on loopback that can be out of order
(``tests/hub``, where a fault strikes at every request).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from builders.checkpoints import contents
from builders.hub_server import BASE, NEW, TOKEN, FakeHub, Fault
from huggingface_hub import ModelCard

from mllmeraser import cli
from mllmeraser.console import console

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs a command: its exit code, and what it said on stdout and stderr."""

    def run(*arguments: object) -> tuple[object, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(console, "quiet", False)
        monkeypatch.setattr(sys, "argv", ["mllmeraser", "push", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
        return exit_.value.code, said.out, said.err

    return run


def test_a_push_keeps_its_promises(
    hub: FakeHub, hub_export: Path, published: str, run: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hub_export.parent)
    hub.repos[BASE].gated = "auto"
    code, out, err = run(hub_export.name, NEW, "--dry-run")
    assert code == 0 and NEW not in hub.repos
    listed = {line.split()[2]: int(line.split()[1].replace(",", "")) for line in out.splitlines()[:-2]}
    assert err.splitlines()[-1] == "next: the same without --dry-run"

    before = contents(hub_export)
    code, out, err = run(hub_export.name, NEW, "--json")
    document, repo = json.loads(out), hub.repos[NEW]
    assert code == 0 and contents(hub_export) == before
    assert repo.private and document["private"] and "PUBLIC" not in out
    assert len(repo.commits) == 2 and document["revision"] == repo.commits[-1].oid
    remote = {name: blob for name, blob in repo.files.items() if name != ".gitattributes"}
    assert listed == {name: len(blob.data) for name, blob in remote.items()} and remote.keys() == before.keys()
    shards = [name for name in before if name.startswith("mllmeraser-base-")]
    assert {f["name"] for f in document["files"] if f["action"] == "copy"} == set(shards)
    assert not set(hub.uploaded()) & {repo.files[name].sha256 for name in shards}
    card = ModelCard(repo.files["README.md"].data.decode())
    assert (card.data.license, card.data.base_model) == ("llama2", BASE)
    assert repo.files["LICENSE"].data == b"the licence of the base" and repo.gated == document["gated"] == "auto"
    assert f"{BASE}@{published}" in err.splitlines()[-1]


def test_a_hash_that_differs_on_the_hub_is_exit_code_3(hub: FakeHub, hub_export: Path, run: object) -> None:
    hub.wrong_sha = {f"{NEW}/mllmeraser-steering.safetensors"}
    code, out, err = run(hub_export, NEW, "--public", "--i-know-this-tells-whom-it-forgets")
    assert (code, out) == (3, "") and "mllmeraser-steering.safetensors is not what was sent" in err
    assert hub.repos[NEW].private


def test_a_directory_that_was_changed_is_exit_code_3(hub: FakeHub, hub_export: Path, run: object) -> None:
    with (hub_export / "config.json").open("ab") as file:
        file.write(b" ")
    code, out, err = run(hub_export, NEW)
    assert (code, out) == (3, "") and "not pushed" in err and not hub.requests


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_a_hub_that_fails_leaves_nothing_and_the_same_command_goes_on(
    hub: FakeHub, hub_export: Path, run: object, kind: str
) -> None:
    hub.faults = [Fault("/commit/", "500" if kind == "500" else "cut", 1)]
    code, out, err = run(hub_export, NEW)
    assert (code, out) == (1, "") and len(err.splitlines()) == 1 and "run the same command again" in err
    assert hub.repos[NEW].private and hub.repos[NEW].files.keys() == {".gitattributes"}
    assert run(hub_export, NEW)[0] == 0
    assert hub.repos[NEW].files.keys() == {*contents(hub_export), ".gitattributes"}
