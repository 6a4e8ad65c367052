"""BASE on the Hub: the commit it was resolved to, and one line for whatever goes wrong on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.checkpoints import contents
from builders.hub_server import BASE, FakeHub, Fault

from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.inference.source import resolve


def test_a_branch_or_tag_is_resolved_to_its_commit(hub: FakeHub, published: str, base_directory: Path) -> None:
    hub.repos[BASE].tags["v1"] = hub.repos[BASE].commits[-1]
    for revision in ("", "@main", "@v1", f"@{published}"):
        source = resolve(f"{BASE}{revision}")
        assert (source.repo_id, source.revision, source.path.name) == (BASE, published, published)
    fetched = contents(source.path)
    assert "modeling_base.py" in fetched  # nothing of it is run: tests/attacks
    assert "training_args.bin" not in fetched
    assert {n: d for n, d in contents(base_directory).items() if not n.endswith(".bin")} == {
        n: d for n, d in fetched.items() if n != ".gitattributes"
    }


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("org/nothing", "org/nothing: the Hub answered: 40"),
        (f"{BASE}@no-such-branch", "no-such-branch: the Hub answered: 404"),
        ("org--x/name", "not a Hub id"),
        ("just-a-name", "no such directory"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(hub: FakeHub, published: str, source: str, complaint: str) -> None:
    with pytest.raises(MllmEraserError, match=complaint) as error:
        resolve(source)
    assert "\n" not in str(error.value)


def test_a_private_or_gated_base_needs_a_reader(hub: FakeHub, published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    hub.repos[BASE].gated = "manual"
    with pytest.raises(MllmEraserError, match="the Hub"):
        resolve(BASE)
    hub.repos[BASE].private = True
    with pytest.raises(MllmEraserError, match="the Hub"):
        resolve(BASE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["500", "cut"])
@pytest.mark.parametrize("where", ["/api/models/", "/tree/", r"HEAD .*\.safetensors", "GET .*/resolve/", "/objects/"])
def test_a_fault_while_it_is_fetched_is_an_error_and_the_next_call_goes_on(
    hub: FakeHub, published: str, kind: str, where: str
) -> None:
    hub.faults = [Fault(where, "500" if kind == "500" else "cut", 99)]
    try:
        resolve(f"{BASE}@main")
    except MllmEraserError as error:
        assert "\n" not in str(error) and not isinstance(error, InputError)
    assert hub.faults[0].times < 99
    hub.faults = []
    assert resolve(f"{BASE}@main").revision == published
