"""What a stranger to mllmeraser makes of a checkpoint is what the library makes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.checkpoints import make_bundle

from mllmeraser.demo import stranger
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.demo.strangers import Strangers
from mllmeraser.errors import MllmEraserError
from mllmeraser.evaluation.answering import answer
from mllmeraser.evaluation.items import Reply
from mllmeraser.evaluation.protocols import protocol_named
from mllmeraser.exporter.directory import export
from mllmeraser.inference.loading import load
from mllmeraser.inference.source import Source
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering.compute import compute
from mllmeraser.steering.recipe import make_recipe

PLAIN = {"layers": "4,7", "gate_layer": "4", "gate_shape": "step:0.6", "bandwidth": "0.6", "augment": False}
TRUSTED = {"trust_remote_code": True}


@pytest.fixture(scope="module")
def records(demo_data: dict[str, Path]) -> list[Record]:
    """A few of every kind, of the forgotten and of the kept."""
    return [*read_records(demo_data["test"])[::12], *read_records(demo_data["retain_heldout"])[::10]]


@pytest.fixture(scope="module")
def steered(demo_data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's base, steered without any calibration."""
    base = load(CHECKPOINT, dtype="float32")
    forget, retain = read_records(demo_data["forget"])[::3], read_records(demo_data["retain"])[::6]
    recipe = make_recipe("llava", {**PLAIN, "direction": "matched", "calibration_share": "0"})
    directory = tmp_path_factory.mktemp("stranger") / "steered"
    export(Source(CHECKPOINT), [compute(base, forget, retain, recipe).bundle], directory, link="copy")
    return directory


@pytest.fixture(scope="module")
def replies(
    records: list[Record], steered: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[Reply]]]:
    """Those of strangers."""
    with Strangers(tmp_path_factory.mktemp("asked"), records) as strangers:
        strangers.ask("base", CHECKPOINT, {})
        strangers.ask("steered", steered, TRUSTED)
        strangers.ask("off", steered, {**TRUSTED, "steering_enabled": False})
        yield strangers.replies(["base", "steered", "off"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "steered"])
def test_a_stranger_hears_what_the_library_hears(
    replies: dict[str, list[Reply]], records: list[Record], steered: Path, name: str
) -> None:
    checkpoint = load(CHECKPOINT if name == "base" else steered, dtype="float32")
    ours = answer(checkpoint, records, protocol_named("mllmeraser"))
    for said, expected in zip(replies[name], ours, strict=True):
        assert (said.text, said.ids) == (expected.text, expected.ids)
        # fp32 in batches of another width: the sums differ in their last digits.
        assert said.log_likelihoods == pytest.approx(expected.log_likelihoods, rel=1e-4, abs=1e-4)
    assert any(reply.log_likelihoods for reply in ours)


@pytest.mark.slow
def test_steering_changes_what_is_heard_and_off_is_the_base(replies: dict[str, list[Reply]]) -> None:
    assert replies["steered"] != replies["base"]
    assert replies["off"] == replies["base"]


@pytest.mark.slow
def test_a_stranger_cannot_import_mllmeraser(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['stranger.py', {str(tmp_path / 'no request')!r}]\n"
        "try:\n"
        f"    runpy.run_path({stranger.__file__!r}, run_name='__main__')\n"
        "except FileNotFoundError:\n"
        "    pass\n"
        "try:\n"
        "    import mllmeraser.inference\n"
        "except ModuleNotFoundError:\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 7


def test_a_checkpoint_that_cannot_be_asked_is_one_line_with_the_last_of_its_complaints(
    records: list[Record], world: Path, tmp_path: Path
) -> None:
    export(Source(world / "base"), [make_bundle(world / "base")], tmp_path / "out")
    with Strangers(tmp_path, records[:1]) as strangers:
        strangers.ask("distrusted", tmp_path / "out", {})
        with pytest.raises(MllmEraserError, match=r"^asking the checkpoint distrusted failed: .*trust_remote_code.*$"):
            strangers.replies(["distrusted"])


def test_no_stranger_outlives_its_context(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Strangers(tmp_path, records) as strangers:
        strangers.ask("base", CHECKPOINT, {})
        raise KeyboardInterrupt
    assert strangers.asked["base"].process.poll() == -signal.SIGKILL  # not waited for until it had answered
