"""A push with the real client: what arrives, who can see it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from builders.card_results import write_results
from builders.checkpoints import contents, make_bundle
from builders.hub_server import BASE, NEW, STRANGER, Blob, FakeHub
from huggingface_hub import ModelCard, snapshot_download

from mllmeraser.errors import InputError, MllmEraserError, VerificationError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.hub import push
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source, resolve

# The client hands uploads to httpx in a way that httpx deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
COMMITS, WRITES = r"POST .*/commit/", r"^(POST|PUT|DELETE) "


def test_everything_arrives_in_one_private_commit_and_base_shards_are_copied(
    hub: FakeHub, hub_export: Path, base_directory: Path, published: str
) -> None:
    before = contents(hub_export)
    pushed = push(hub_export, NEW)
    assert contents(hub_export) == before  # nothing local is changed
    repo = hub.repos[NEW]
    assert repo.private and hub.calls(COMMITS) == 1 and len(repo.commits) == 2  # the first is the Hub's own
    assert repo.tags[pushed.tag].oid == repo.commits[-1].oid == pushed.revision
    remote = {name: blob.data for name, blob in repo.files.items() if name != ".gitattributes"}
    made = {"README.md", "mllmeraser.json"}  # the card now names the repository
    assert {name: data for name, data in remote.items() if name not in made} == {
        name: data for name, data in before.items() if name not in made
    }
    shards = {name for name in before if name.startswith("mllmeraser-base-")}
    assert len(shards) == len(list(base_directory.glob("model-*.safetensors"))) > 2
    assert {step.name for step in pushed.steps if step.action == "copy"} == shards
    assert hub.uploaded() == [repo.files["mllmeraser-steering.safetensors"].sha256]
    assert pushed.document()["base"] == f"{BASE}@{published}"
    assert pushed.size("copy") == sum(len(before[name]) for name in shards)


def test_what_was_pushed_verifies_when_it_is_fetched(hub: FakeHub, hub_export: Path, base_directory: Path) -> None:
    pushed = push(hub_export, NEW)
    fetched = Path(snapshot_download(NEW, revision=pushed.tag))
    checked = verify(fetched, base_directory)
    assert checked.ok, [check for check in checked.checks if not check.ok]


def test_what_was_pushed_loads_by_its_name_and_nothing_leads_it_elsewhere(hub: FakeHub, hub_export: Path) -> None:
    pushed = push(hub_export, NEW)
    cls, batch = tiny.modeling.steered_class("llava"), tiny.prompt("llava", 5, 6)
    with torch.no_grad():
        there, here = (cls.from_pretrained(where)(**batch).logits for where in (NEW, hub_export))
    assert torch.equal(there, here)
    native: Any = cls.native_class
    for variant in (None, "mllmeraser"):
        with pytest.raises(OSError, match="does not appear to have a file named"):
            native.from_pretrained(NEW, variant=variant)
    added = Blob(b'{"base_model_name_or_path": "org/base"}', False)
    hub.repos[NEW].commit({**hub.repos[NEW].files, "adapter_config.json": added})
    with pytest.raises(ValueError, match=r"adapter_config\.json: lies in"):
        cls.from_pretrained(NEW)
    cls.from_pretrained(NEW, revision=pushed.tag)  # nobody can add to it


def test_a_dry_run_says_what_a_push_does_and_writes_nothing(hub: FakeHub, hub_export: Path) -> None:
    planned = push(hub_export, NEW, dry_run=True)
    assert NEW not in hub.repos and hub.calls(WRITES) == 0
    pushed = push(hub_export, NEW)
    assert planned.document() == {**pushed.document(), "revision": None, "dry_run": True}
    repo = hub.repos[NEW]
    sizes = {name: len(blob.data) for name, blob in repo.files.items() if name != ".gitattributes"}
    assert {step.name: step.size for step in planned.steps} == sizes
    assert any(
        line.split() == ["copy", f"{step.size:,}", step.name] for step in planned.steps for line in planned.lines()
    )


def test_pushing_again_changes_nothing_and_a_later_export_replaces_all_of_it(
    hub: FakeHub, hub_export: Path, base_directory: Path, published: str, tmp_path: Path
) -> None:
    first = push(hub_export, NEW)
    again = push(hub_export, NEW)
    assert again.revision == first.revision and {step.action for step in again.steps} == {"keep"}
    assert hub.calls(COMMITS) == 1
    hub.repos[NEW].files["stale.safetensors"] = Blob(b"of an earlier push", True)
    other = tmp_path / "other"
    export(Source(base_directory, BASE, published), [make_bundle(base_directory, request_id="r2")], other)
    later = push(other, NEW)
    assert {step.name: step.action for step in later.steps}["stale.safetensors"] == "delete"
    assert hub.repos[NEW].files.keys() == contents(other).keys() | {".gitattributes"}
    assert later.tag != first.tag and hub.repos[NEW].tags.keys() == {first.tag, later.tag}


def test_a_repository_of_something_else_is_left_alone(hub: FakeHub, hub_export: Path) -> None:
    """Not least because a loader would find its weights, un-erased."""
    hub.add(NEW, {"model.safetensors": b"of somebody"}, private=True)
    with pytest.raises(InputError, match=r"holds model\.safetensors.*another repository"):
        push(hub_export, NEW)
    assert hub.calls(WRITES) == 0


def test_a_public_repository_needs_public(hub: FakeHub, hub_export: Path) -> None:
    hub.add(NEW, {}, private=False)
    with pytest.raises(InputError, match=r"exists and is public.*--public"):
        push(hub_export, NEW)
    assert hub.calls(WRITES) == 0
    assert not push(hub_export, NEW, public=True, tells_whom_it_forgets=True).private


def test_public_needs_a_word_about_whom_it_tells(hub: FakeHub, hub_export: Path) -> None:
    with pytest.raises(InputError, match="--i-know-this-tells-whom-it-forgets"):
        push(hub_export, NEW, public=True)
    assert NEW not in hub.repos


def test_public_comes_last(hub: FakeHub, hub_export: Path) -> None:
    pushed = push(hub_export, NEW, public=True, tells_whom_it_forgets=True)
    assert not pushed.private and not hub.repos[NEW].private
    assert hub.requests[-1][0] == f"PUT /api/models/{NEW}/settings"
    assert hub.calls(r"PUT .*/settings") == 1


def test_the_gate_of_the_base_is_there_before_any_file(hub: FakeHub, hub_export: Path) -> None:
    hub.repos[BASE].gated = "manual"
    card = hub.repos[BASE].files["README.md"].data
    terms = "---\nextra_gated_prompt: 'Say who: and why'\nextra_gated_fields:\n  Affiliation: text\n"
    hub.repos[BASE].files["README.md"] = Blob(card.replace(b"---\n", terms.encode(), 1), False)
    pushed = push(hub_export, NEW, public=True, tells_whom_it_forgets=True)
    assert pushed.gated == hub.repos[NEW].gated == "manual"
    order = [request for request, _ in hub.requests]
    assert order.index(f"PUT /api/models/{NEW}/settings") < order.index(f"POST /api/models/{NEW}/preupload/main")
    card_text = hub.repos[NEW].files["README.md"].data.decode()
    data = ModelCard(card_text).data
    assert data.extra_gated_prompt == "Say who: and why" and data.extra_gated_fields == {"Affiliation": "text"}
    assert "**Access.** The base asks for access (manual approval)" in card_text


def test_what_is_private_stays_private(hub: FakeHub, hub_export: Path) -> None:
    hub.repos[BASE].private = True
    with pytest.raises(InputError, match=f"base {BASE} is private"):
        push(hub_export, NEW, public=True, tells_whom_it_forgets=True)
    del hub.repos[BASE]
    with pytest.raises(InputError, match=f"base {BASE} cannot be found"):
        push(hub_export, NEW, public=True, tells_whom_it_forgets=True)
    assert hub.calls(WRITES) == 0
    pushed = push(hub_export, NEW)  # a private push needs no base; its shards are uploaded
    assert pushed.private and pushed.size("copy") == 0 and "cannot be found" in pushed.warnings[0]


def test_the_base_is_uploaded_where_the_hub_cannot_copy_it(
    hub: FakeHub, hub_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.no_duplicates = True
    push(hub_export, NEW)
    assert "cannot copy" in capsys.readouterr().err
    assert hub.calls(COMMITS) == 1 and len(hub.uploaded()) > 3


def test_a_file_that_differs_from_the_base_is_never_copied(hub: FakeHub, hub_export: Path) -> None:
    """Names do not count, hashes do."""
    shard = next(name for name in hub.repos[BASE].files if name.endswith(".safetensors"))
    hub.repos[BASE].files[shard] = Blob(b"other weights under this name", True)
    steps = [step for step in push(hub_export, NEW).steps if step.name.startswith("mllmeraser-base-")]
    assert sorted(step.action for step in steps) == ["copy"] * (len(steps) - 1) + ["upload"]


@pytest.mark.parametrize("name", ["adapter_config.json", "custom_generate/generate.py"])
def test_what_leads_transformers_elsewhere_is_named_and_deleted(hub: FakeHub, hub_export: Path, name: str) -> None:
    push(hub_export, NEW)
    hub.repos[NEW].files[name] = Blob(b"{}", False)
    for dry_run in (True, False):
        pushed = push(hub_export, NEW, dry_run=dry_run)
        assert [warning for warning in pushed.warnings if name in warning and "transformers" in warning]
    assert name not in hub.repos[NEW].files
    assert not [warning for warning in push(hub_export, NEW).warnings if name in warning]


def test_a_directory_that_does_not_verify_is_not_pushed(hub: FakeHub, hub_export: Path) -> None:
    (hub_export / "LICENSE").write_text("another licence")
    with pytest.raises(VerificationError, match=r"file LICENSE.*not pushed"):
        push(hub_export, NEW)
    assert not hub.requests


def test_another_sha256_on_the_hub_is_an_error_and_nothing_becomes_public(hub: FakeHub, hub_export: Path) -> None:
    for name in ("mllmeraser-steering.safetensors", "config.json"):  # a large file and a small one
        hub.wrong_sha = {f"{NEW}/{name}"}
        with pytest.raises(VerificationError, match=f"{name} is not what was sent"):
            push(hub_export, NEW, public=True, tells_whom_it_forgets=True)
        assert hub.repos[NEW].private and not hub.repos[NEW].tags


def test_a_commit_of_somebody_else_meanwhile_is_not_overwritten(
    hub: FakeHub, hub_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    preupload = HfApi.preupload_lfs_files
    push(hub_export, NEW)
    hub.repos[NEW].commit({**hub.repos[NEW].files, "LICENSE": Blob(b"x", False)})

    def meanwhile(self: HfApi, *args: object, **kwargs: object) -> None:
        preupload(self, *args, **kwargs)
        hub.repos[NEW].commit({**hub.repos[NEW].files, "theirs.txt": Blob(b"y", False)})

    monkeypatch.setattr(HfApi, "preupload_lfs_files", meanwhile)
    with pytest.raises(MllmEraserError, match=r"A commit has happened since|412"):
        push(hub_export, NEW)
    assert "theirs.txt" in hub.repos[NEW].files


@pytest.mark.parametrize("repo_id", ["steered", "a/b/c", "me/--x", "../x"])
def test_a_repository_needs_a_name(hub: FakeHub, tmp_path: Path, repo_id: str) -> None:
    with pytest.raises(InputError, match="org/name"):
        push(tmp_path, repo_id)
    assert not hub.requests


def test_who_may_not_write_is_told_so(hub: FakeHub, hub_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(MllmEraserError, match="hf auth login"):
        push(hub_export, NEW)
    hub.add(NEW, {}, private=False)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(MllmEraserError, match="allowed to write"):
        push(hub_export, NEW, public=True, tells_whom_it_forgets=True)
    assert hub.repos[NEW].files.keys() == {".gitattributes"}


def test_a_local_base_is_uploaded_in_full(hub: FakeHub, base_directory: Path, tmp_path: Path) -> None:
    export(Source(base_directory), [make_bundle(base_directory)], tmp_path / "out")
    pushed = push(tmp_path / "out", NEW)
    assert pushed.base is None and pushed.size("copy") == 0 and "local directory" in pushed.warnings[0]
    assert "base_model" not in hub.repos[NEW].files["README.md"].data.decode().split("---")[1]
    assert hub.repos[NEW].files["LICENSE"].data == (base_directory / "LICENSE").read_bytes()
    assert ModelCard(hub.repos[NEW].files["README.md"].data.decode()).data.license == "llama2"


def test_a_thin_checkpoint_is_pushed_without_weights(hub: FakeHub, published: str, tmp_path: Path) -> None:
    source = resolve(f"{BASE}@{published}")  # into the cache, where a verification looks for it
    export(source, [make_bundle(source.path)], tmp_path / "thin", thin=True)
    pushed = push(tmp_path / "thin", NEW)
    assert pushed.size("copy") == 0 and len(hub.uploaded()) == 1  # the steering file
    assert not any(name.startswith("model-") for name in hub.repos[NEW].files)
    card = ModelCard(hub.repos[NEW].files["README.md"].data.decode())
    assert card.data.base_model_relation == "adapter" and f"`{BASE}` at revision\n`{published}`" in card.text
    assert verify(Path(snapshot_download(NEW, revision=pushed.tag))).ok


def test_a_signed_directory_travels_byte_for_byte(hub: FakeHub, hub_export: Path, tmp_path: Path) -> None:
    envelope = {"payload": "e30=", "signatures": [{"sig": "a signature of every file"}]}
    signature = {"dsseEnvelope": envelope, "verificationMaterial": {"publicKey": {}}}
    (hub_export / "model.sig").write_text(json.dumps(signature))
    push(hub_export, NEW)
    remote = {name: blob.data for name, blob in hub.repos[NEW].files.items() if name != ".gitattributes"}
    assert remote == contents(hub_export)
    with pytest.raises(InputError, match="signed"):
        push(hub_export, NEW, results=write_results(tmp_path / "results.json", ["forget"]))


def test_sharing_a_name_with_the_base_is_no_accident(hub: FakeHub, hub_export: Path, base_directory: Path) -> None:
    """The base's own repository is somebody's."""
    hub.repos[BASE].private = True
    with pytest.raises(InputError, match="another repository"):
        push(hub_export, BASE)
