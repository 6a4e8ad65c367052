"""At every request of a push something goes wrong: nothing half is ever visible, and the same call goes on."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from builders.checkpoints import contents
from builders.hub_server import BASE, NEW, FakeHub, Fault, Kind
from huggingface_hub import HfApi

from mllmeraser.errors import MllmEraserError, VerificationError
from mllmeraser.exporter import hub as pushing
from mllmeraser.exporter.verify import Verification

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is known to verify."""
    monkeypatch.setattr(pushing, "verify_opened", lambda opened: Verification((), "checkpoint"))


def state(hub: FakeHub, hub_export: Path) -> str:
    """absent, empty, or complete; anything else is half."""
    if NEW not in hub.repos:
        return "absent"
    names = hub.repos[NEW].files.keys() - {".gitattributes"}
    return {0: "empty", len(contents(hub_export)): "complete"}.get(len(names), "half")


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        pytest.param("500", 1, marks=pytest.mark.slow),
        pytest.param("cut", 1, marks=pytest.mark.slow),
        pytest.param("cut after", 1, marks=pytest.mark.slow),
        pytest.param("500", 99, marks=pytest.mark.slow),
    ],
)
def test_a_fault_at_every_request(hub: FakeHub, hub_export: Path, quick: None, kind: Kind, times: int) -> None:
    hub.repos[BASE].gated = "auto"
    pushing.push(hub_export, NEW)  # the first call of a process asks for what is no part of a push
    del hub.repos[NEW]
    hub.requests.clear()
    pushing.push(hub_export, NEW)
    asked = list(dict.fromkeys(request for request, _ in hub.requests))
    assert len(asked) >= 12
    failed = []
    for request in asked:
        del hub.repos[NEW]
        fault = Fault(f"^{re.escape(request)}$", kind, times)
        hub.faults = [fault]
        try:
            pushing.push(hub_export, NEW)
        except MllmEraserError as error:
            failed.append(request)
            assert "\n" not in str(error) and "SIGNATURE" not in str(error), error
            assert isinstance(error, VerificationError) or re.search("run the same|nothing was written", str(error))
        assert fault.times < times  # it did strike
        before = state(hub, hub_export)
        assert before in ("absent", "empty", "complete"), (request, before)
        assert NEW not in hub.repos or hub.repos[NEW].private
        hub.faults = []
        pushed = pushing.push(hub_export, NEW)
        assert state(hub, hub_export) == "complete" and hub.repos[NEW].gated == "auto"
        assert len(hub.repos[NEW].commits) == 2 and hub.repos[NEW].tags[pushed.tag].oid == pushed.revision
    assert f"POST /api/models/{NEW}/commit/main" in failed
    assert failed == asked or times == 1  # the client itself tries some again; a fault that stays is always reported


def test_ctrl_c_in_the_middle_leaves_an_empty_private_repository(
    hub: FakeHub, hub_export: Path, quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create_commit = HfApi.create_commit

    def interrupted(self: HfApi, *args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)  # the signal arrives here

    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pushing.push(hub_export, NEW)
    assert state(hub, hub_export) == "empty" and hub.repos[NEW].private
    assert "empty and private; no partial commit is visible; run the same command again" in " ".join(
        capsys.readouterr().err.split()
    )
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    pushing.push(hub_export, NEW)
    assert state(hub, hub_export) == "complete"
