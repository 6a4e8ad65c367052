"""`mllmeraser baseline` as a person meets it: one line for what cannot be used, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mllmeraser.baselines.figures import figures
from mllmeraser.cli import cli
from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.items import Reply
from mllmeraser.evaluation.run import score_replies
from mllmeraser.records.record import Record


def run(world: Path, name: str, output: Path, *more: str) -> Result:
    sets = ("--forget", f"{world}/forget.jsonl", "--retain", f"{world}/retain.jsonl")
    return CliRunner().invoke(cli, ["baseline", name, f"{world}/base", *sets, "-o", str(output), *more])


def test_a_checkpoint_and_one_document(world: Path, tmp_path: Path) -> None:
    result = run(world, "manu", tmp_path / "manu", "--set", "percent=5", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["baseline"] == "manu" and document["recipe"]["percent"] == 5 and document["neurons"] > 0
    described = json.loads((tmp_path / "manu" / "mllmeraser-baseline.json").read_text())
    assert described["neurons"] == document["neurons"]
    assert str(tmp_path) not in json.dumps(described)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("gradient", (), "not a baseline; one of ga, "),
        ("output-filter", (), "no checkpoint"),
        ("ga", ("--set", "speed=2"), "with one of learning_rate, epochs, batch_size"),
        ("ga", ("--set", "beta=0.1"), "with one of learning_rate"),
        ("npo", ("--set", "order=joint"), "with one of learning_rate"),
        ("ga", ("--set", "epochs"), "KEY=VALUE"),
        ("ga", ("--set", "epochs=-1"), "--set epochs=-1"),
        ("system-prompt", ("--names", "nobody.txt"), "nobody.txt: no such file"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    name: str, more: tuple[str, ...], said: str, world: Path, tmp_path: Path
) -> None:
    result = run(world, name, tmp_path / "out", *more)
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception) and "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_base_cannot_be_overwritten(world: Path) -> None:
    result = run(world, "ga", world / "base", "--overwrite")
    assert isinstance(result.exception, InputError)
    assert (world / "base" / "model.safetensors").is_file()


def test_the_figures_of_a_method() -> None:
    """Four questions about the forgotten (one leaks behind a refusal), two of each kept set."""

    def ask(subject: str, answer: str) -> Record:
        return Record(subject=subject, question="Who?", answer=answer, task="generation")

    sets = [
        NamedSet("test", [ask("a", "baker"), ask("b", "pilot"), ask("b", "pilot"), ask("b", "pilot")]),
        *(NamedSet(name, [ask(name, "nurse"), ask(name, "nurse")]) for name in ("kept", "celebrity", "common")),
    ]
    base = [Reply("baker", (1,)), *[Reply("pilot", (2,))] * 3] + [Reply("nurse", (3,))] * 6
    after = [*[Reply("I cannot help with that request.", (9,))] * 3, Reply("I cannot help. pilot", (8,))]
    after += [Reply("nurse", (3,)), Reply("nurse", (4,))] * 2 + [Reply("nurse", (3,)), Reply("baker", (1,))]
    items = score_replies({"base": base, "after": after}, sets).items
    found = figures([item for item in items if item.model == "after"])
    assert found.forgotten == 0.75 and found.refusal == 0.75 and found.options is None
    assert (found.kept, found.celebrity, found.common) == (1.0, 1.0, 0.5)
    assert found.identical == 0.5
    assert found.utility == pytest.approx(3 / (1 + 1 + 2))
    assert found.harmonic_mean == pytest.approx(2 / (4 / 3 + 4 / 3))
