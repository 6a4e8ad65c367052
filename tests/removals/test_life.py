"""From waiting to active: computing survives a kill, an export has all that are active, others stay as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import talker
from builders.checkpoints import make_base, make_bundle
from builders.command_line import Run, document
from builders.requests import ledger_of
from safetensors.numpy import load_file

from mllmeraser.bundle.budget import together
from mllmeraser.bundle.bundle import Bundle, load_bundle, save_bundle
from mllmeraser.bundle.metadata import HeldOutScores
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError, MllmEraserError, VerificationError
from mllmeraser.exporter.verify import verify
from mllmeraser.modeling_patches.format_mllmeraser import STEERING_FILE
from mllmeraser.removals import computing
from mllmeraser.removals.breadth import LIMITS
from mllmeraser.removals.computing import figures_of
from mllmeraser.removals.entries import BaseFacts, Computed, Share
from mllmeraser.removals.ledger import Ledger
from mllmeraser.steering.interference import Cell, Interference


class Killed(BaseException):
    """In the place of a SIGKILL."""


# --------------------------------------------------------------------------------------------------- computed for real


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a retain set and a recipe."""
    folder = tmp_path_factory.mktemp("life")
    talker.make_base(folder / "base")
    talker.write_people(folder / "retain.jsonl", range(3, 7))
    recall, erasure = talker.write_refusals(folder)
    settings = {"recall": str(recall), "erasure": str(erasure), "layers": "1", "gate_layer": "own", "bandwidth": "1"}
    settings |= {"strength": "1", "gate_shape": "step:0.5", "gate_scope": "prompt", "edit": "add", "reply_steps": "1"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (folder / "recipe.toml").write_text("\n".join([*lines, "augment = false", "calibration_share = 0"]))
    return folder


@pytest.fixture
def ledger(talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Three requests that wait; the gates of a random model may open on whatever they like."""
    monkeypatch.setitem(LIMITS, "gate-on-general", 1.0)
    return ledger_of(tmp_path)[0]


def compute(ledger: Ledger, talking: Path, *ids: str) -> Any:
    told = ledger.compute(talking / "base", talking / "retain.jsonl", ids, recipe=talking / "recipe.toml")
    return [(row["id"], row["outcome"]) for row in told.facts["requests"]]


def test_what_waits_is_computed_exported_measured_and_told(talking: Path, ledger: Ledger, tmp_path: Path) -> None:
    ids = list(ledger.state().requests)
    assert compute(ledger, talking) == [(id_, "computed") for id_ in ids]
    assert compute(ledger, talking) == []
    assert not ledger.folder.work.exists()
    for id_ in ids:
        assert load_bundle(ledger.folder.bundle(id_)).metadata.requests[0].id == id_
    ledger.export(talking / "base", tmp_path / "out")
    assert [request.status for request in ledger.state().requests.values()] == ["active"] * 3
    assert verify(tmp_path / "out", talking / "base").ok
    told = ledger.measure(talking / "base", tmp_path / "out", ids[:1], retain=talking / "retain.jsonl")
    assert [row["id"] for row in told.facts["measured"]] == [ids[0], None]
    assert told.facts["measured"][0]["before"]["n"] == 4
    assert {key: told.facts["measured"][0]["reworded"][key] for key in ("attack", "n")} == {
        "attack": "paraphrase",
        "n": 4,
    }
    assert "We asked the model 4 questions about you" in "\n".join(ledger.letter(ids[0], "subject").lines())
    assert ledger.verify(exports=[tmp_path / "out"]).ok
    ledger.withdraw(ids[0], "person")
    with pytest.raises(InputError, match="not the last export"):
        ledger.measure(talking / "base", talking / "base")
    ledger.export(talking / "base", tmp_path / "next")
    assert [check.ok for check in ledger.verify(exports=[tmp_path / "out"]).checks if "export" in check.name] == [False]
    assert [request.status for request in ledger.state().requests.values()] == ["withdrawn", "active", "active"]


def test_a_killed_computation_goes_on_where_it_was(
    talking: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = ledger.state().requests
    done: list[str] = []
    real = computing.compute_bundle

    def dies_at_the_second(*given: Any, **named: Any) -> Any:
        found = real(*given, **named)
        done.append(named["request_id"])
        if len(done) == 2:
            raise Killed
        return found

    monkeypatch.setattr(computing, "compute_bundle", dies_at_the_second)
    with pytest.raises(Killed):
        compute(ledger, talking)
    assert [request.status for request in ledger.state().requests.values()] == ["computed", "waiting", "waiting"]
    assert ledger.folder.work.stat().st_mode & 0o777 == 0o700
    passes = {path: path.stat().st_mtime_ns for path in ledger.folder.work.glob("*.safetensors")}
    assert passes
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # so that the passes can be looked at
    assert compute(ledger, talking) == [(second, "computed"), (third, "computed")]
    assert {path: path.stat().st_mtime_ns for path in passes} == passes  # none was made twice
    assert done == [first, second, second, third]


def test_each_request_is_computed_without_the_others(talking: Path, ledger: Ledger, tmp_path: Path) -> None:
    """Alone, in any order, or beside others whose records are gone: the same bundle."""
    ids = list(ledger.state().requests)
    compute(ledger, talking, ids[2])
    for id_ in ids[:2]:
        shutil.rmtree(ledger.folder.private(id_))
    alone = load_bundle(ledger.folder.bundle(ids[2]))
    (tmp_path / "other").mkdir()
    other, _ = ledger_of(tmp_path / "other")
    compute(other, talking)
    beside = load_bundle(other.folder.bundle(list(other.state().requests)[2]))
    assert alone.tensors.keys() == beside.tensors.keys()
    assert all((alone.tensors[name] == beside.tensors[name]).all() for name in alone.tensors)


def test_the_requests_of_a_ledger_share_the_landmarks_of_what_stays(
    talking: Path, ledger: Ledger, tmp_path: Path
) -> None:
    """Even if the people who must stay are others at the second: a checkpoint holds and reads them once."""
    recipe = (talking / "recipe.toml").read_text().replace('"prompt"', '"conversation"').replace('"add"', '"seal"')
    (tmp_path / "recipe.toml").write_text(recipe.replace('gate_layer = "own"', 'gate_layer = "1"'))
    talker.write_people(tmp_path / "fewer.jsonl", range(4, 8))
    ids = list(ledger.state().requests)
    for id_, retain in zip(ids, (talking / "retain.jsonl", tmp_path / "fewer.jsonl"), strict=False):
        ledger.compute(talking / "base", retain, [id_], recipe=tmp_path / "recipe.toml")
    bundles = [load_bundle(ledger.folder.bundle(id_)) for id_ in ids[:2]]
    whole = sum(array.nbytes for bundle in bundles for array in bundle.tensors.values())
    ledger.export(talking / "base", tmp_path / "out")
    tensors = load_file(tmp_path / "out" / STEERING_FILE)
    shared = [array for name, array in tensors.items() if "kept0" in name]
    assert len(shared) == 1  # the talker's gate reads the state itself
    assert sum(array.nbytes for array in tensors.values()) == whole - shared[0].nbytes
    assert verify(tmp_path / "out", talking / "base").ok


def test_a_gate_that_opens_on_general_knowledge_is_refused_with_the_figure(
    talking: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "gate-on-general", 0.01)
    monkeypatch.setattr(computing, "interference", lambda *_: Interference(((Cell("r", "bank", 254, 0.4, 0.2),),)))
    first = next(iter(ledger.state().requests))
    assert compute(ledger, talking, first) == [(first, "refused")]
    assert not ledger.folder.bundle(first).exists()
    request = ledger.state().requests[first]
    assert request.status == "refused"
    assert request.decided is not None and request.decided.grounds[-1].rule == "gate-on-general"


def test_one_request_that_cannot_be_computed_does_not_stop_the_others(talking: Path, ledger: Ledger) -> None:
    first, second, third = ledger.state().requests
    path = ledger.folder.records(second)
    path.write_text(path.read_text().replace("Lyon", "Paris"))
    assert compute(ledger, talking) == [(first, "computed"), (second, "failed"), (third, "computed")]


def test_a_request_withdrawn_while_it_is_computed_gets_no_bundle(
    talking: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(ledger.state().requests))
    real = computing.compute_bundle

    def meanwhile(*given: Any, **named: Any) -> Any:
        ledger.withdraw(first, "person")
        with pytest.raises(MllmEraserError, match="another run computes in this ledger"):
            compute(ledger, talking)
        return real(*given, **named)

    monkeypatch.setattr(computing, "compute_bundle", meanwhile)
    assert compute(ledger, talking, first) == [(first, "withdrawn")]
    assert not ledger.folder.bundle(first).exists()


# -------------------------------------------------------------------------------------------- many, in a common budget


def scored(base: Path, request: str, number: int) -> Bundle:
    """A bundle whose held-out scores ask for another threshold, the more requests share the budget."""
    bundle = make_bundle(base, request_id=request)
    gate = bundle.metadata.gate.model_copy(update={"shape": "step", "threshold": 0.2})
    bundle.metadata.gate = gate
    bundle.metadata.requests[0].held_out = HeldOutScores(
        retain=1200,  # 2 may open the gate of one of five, 3 of one of four
        highest_of_retain=[0.9 - 0.01 * i - 0.001 * number for i in range(13)],
        variants=0,
        highest_of_variants=[],
        forget_quantiles=[i / 100 for i in range(101)],
    )
    return bundle


@pytest.fixture
def active(tmp_path: Path) -> tuple[Ledger, list[str], Path]:
    """Five requests with bundles, exported; and their base."""
    base = make_base(tmp_path / "base")
    ledger, ids = ledger_of(tmp_path, range(5))
    for number, id_ in enumerate(ids):
        note_bundle(ledger, id_, scored(base, id_, number))
    ledger.export(base, tmp_path / "all")
    return ledger, ids, base


def note_bundle(ledger: Ledger, request: str, bundle: Bundle) -> None:
    path, base = ledger.folder.bundle(request), bundle.metadata.base
    save_bundle(bundle, path)
    facts = Computed(
        bundle_sha256=sha256_of(path),
        bundle_bytes=path.stat().st_size,
        base=BaseFacts(repo_id=base.repo_id, revision=base.revision, config_sha256=base.config_sha256),
        forget=4,
        retain=1200,
        seed=0,
        figures=figures_of(bundle, Share(share=0.0, n=254)),
    )
    assert ledger._note(request, facts)


def requests_of(export: Path) -> dict[str, Any]:
    """What each request is in a checkpoint: its entry in the configuration, and its tensors."""
    entries = json.loads((export / "config.json").read_text())["steering"]["requests"]
    tensors = load_file(export / STEERING_FILE)
    own = [
        {name.replace(f"steering.{i}.", ""): array for name, array in tensors.items() if f"steering.{i}." in name}
        for i in range(len(entries))
    ]
    return {entry["id"]: (entry, found) for entry, found in zip(entries, own, strict=True)}


@pytest.mark.parametrize("withdrawn", [0, 2, 4])
def test_a_withdrawal_leaves_the_others_bit_for_bit_as_they_were(
    active: tuple[Ledger, list[str], Path], tmp_path: Path, withdrawn: int
) -> None:
    ledger, ids, base = active
    before = requests_of(tmp_path / "all")
    left = [load_bundle(ledger.folder.bundle(id_)) for n, id_ in enumerate(ids) if n != withdrawn]
    for bundle in together(left):  # as if the withdrawn one had no share any more
        assert bundle.metadata.gate.threshold != before[bundle.metadata.requests[0].id][0]["gate"]["threshold"]
    ledger.withdraw(ids[withdrawn], "person")
    ledger.erase(ids[withdrawn])
    told = ledger.export(base, tmp_path / "less")
    assert told.facts["entry"]["shares"] == 5
    after = requests_of(tmp_path / "less")
    assert after.keys() == before.keys() - {ids[withdrawn]}
    for id_, (entry, tensors) in after.items():
        assert entry == before[id_][0]
        assert tensors.keys() == before[id_][1].keys() and tensors
        assert all((tensors[name] == before[id_][1][name]).all() for name in tensors)
    assert verify(tmp_path / "less", base).ok
    assert not ledger.folder.bundle(ids[withdrawn]).exists()


def test_an_erased_request_stays_active_with_its_bundle(active: tuple[Ledger, list[str], Path], tmp_path: Path) -> None:
    ledger, ids, base = active
    assert ledger.erase(ids[0]).facts["bundle_kept"] is True
    ledger.export(base, tmp_path / "again")
    assert requests_of(tmp_path / "again").keys() == set(ids)


def test_the_export_notes_the_figures_at_the_threshold_that_the_budget_leaves(
    active: tuple[Ledger, list[str], Path],
) -> None:
    ledger, ids, _ = active
    exported = ledger.state().exported
    assert exported is not None and exported.ids == tuple(ids)
    for each in exported.requests:
        assert each.false_fires is not None and each.recognised is not None
        assert each.false_fires.share <= 0.01 / 5  # 1 % for all five together
        assert each.recognised.share < 0.2  # made-up scores: most forget records lie below the raised threshold


def test_a_bundle_that_was_exchanged_is_not_exported(active: tuple[Ledger, list[str], Path], tmp_path: Path) -> None:
    ledger, ids, base = active
    shutil.copy(ledger.folder.bundle(ids[1]), ledger.folder.bundle(ids[0]))
    with pytest.raises(VerificationError, match="not the bundle that was computed"):
        ledger.export(base, tmp_path / "no")
    assert [check.name for check in ledger.verify().checks if not check.ok] == ["bundles"]
    assert not (tmp_path / "no").exists()


def test_export_from_the_command_line(run: Run, active: tuple[Ledger, list[str], Path], tmp_path: Path) -> None:
    ledger, ids, base = active
    call = ["requests", "export", base, "-o", tmp_path / "out", "--ledger", ledger.folder.root, "--json"]
    entries = len(ledger.chain().entries)
    dry = run(*call, "--dry-run")
    assert (dry.code, document(dry)["entry"], (tmp_path / "out").exists()) == (0, None, False)
    assert len(ledger.chain().entries) == entries
    done = run(*call)
    assert (done.code, document(done)["requests"]) == (0, ids)
    for id_ in ids:
        ledger.withdraw(id_, "expired")
    none = run(*call, "--overwrite")
    assert none.code == 2
    assert "nothing to export" in none.error


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_signed_export_says_who_signed(active: tuple[Ledger, list[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra 'sign' is not installed")
    from builders.signing_keys import make_key

    from mllmeraser.exporter.signing import signer_sha256

    ledger, ids, base = active
    private, public = make_key(tmp_path)
    ledger.export(base, tmp_path / "signed", private_key=private)
    exported = ledger.state().exported
    assert exported is not None and exported.signed_by == signer_sha256(public) == signer_sha256(private)
    assert verify(tmp_path / "signed", base, public).ok
    assert exported.signed_by in "\n".join(ledger.letter(ids[0], "auditor").lines())
