"""What trials ask: variants of what is to be forgotten, and only the records of what must stay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from builders import talker

from mllmeraser.inference.loading import load
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering import calibrate
from mllmeraser.steering.augment import VARIANTS
from mllmeraser.steering.compute import Computation, compute
from mllmeraser.steering.intervention import Intervention
from mllmeraser.steering.recipe import make_recipe
from mllmeraser.steering.trials import Trial, Trials

THRESHOLD = 0.02  # between the held-out scores of the retain records
LISTED = (12, 16)  # records of forget and of retain


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Computation, list[Trials]]:
    """A computation with variants, and the trials it made."""
    folder = tmp_path_factory.mktemp("trials")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 7))
    talker.write_refusals(folder)
    seen: list[Trials] = []

    class Watched(Trials):
        def __call__(self, intervention: Intervention) -> Trial:
            if self not in seen:
                seen.append(self)
            return super().__call__(intervention)

    given = {"recall": folder / "recall.jsonl", "erasure": folder / "erasure.jsonl"}
    recipe = make_recipe(
        "llava",
        {**given, **talker.ADDED, "layers": "1", "gate_layer": "1", "gate_shape": f"step:{THRESHOLD}", "augment": True},
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrate, "Trials", Watched)
        records = (read_records(folder / f"{name}.jsonl") for name in ("forget", "retain"))
        return compute(load(folder / "base"), *records, recipe), seen


def test_variants_of_what_is_to_be_forgotten_are_asked(made: tuple[Computation, list[Trials]]) -> None:
    (trials,) = made[1]
    assert len(trials.material.forget) == (1 + VARIANTS) * LISTED[0]
    assert any(i >= LISTED[0] for i in trials.forget)
    assert all(trials.fold.forget[i] for i in trials.forget)


def test_of_what_must_stay_only_records_are_asked(made: tuple[Computation, list[Trials]]) -> None:
    (trials,) = made[1]
    assert len(trials.material.retain) == (1 + VARIANTS) * LISTED[1]
    assert trials.retain == [i for i in range(LISTED[1]) if trials.fold.retain[i]]


def test_behind_a_threshold_kept_is_the_share_of_all_records_on_which_the_gate_stays_closed(
    made: tuple[Computation, list[Trials]],
) -> None:
    calibration = made[0].calibration
    held_out = calibration.gates[1].held_out
    assert held_out is not None and len(held_out.retain) == LISTED[1]
    kept = float((held_out.retain < THRESHOLD).double().mean())
    assert 0 < kept < 1
    assert [trial.figures.kept for trial in calibration.curve] == pytest.approx([kept] * len(calibration.curve))
    assert calibration.curve


def test_what_cannot_be_judged_counts_by_refusals_only() -> None:
    born = Record(subject="1", question="Where was she born?", answer="She was born in Riga.", task="generation")
    tall = Record(subject="1", question="Is she tall?", answer="Yes.", task="generation")
    trials = object.__new__(Trials)
    decode = SimpleNamespace(batch_decode=lambda replies, skip_special_tokens: replies)
    trials.checkpoint = SimpleNamespace(processor=SimpleNamespace(tokenizer=decode))  # type: ignore[assignment]
    said = ["Riga, surely.", "I cannot help with that request.", "Yes, she is."]
    trials.forget = [0, 1, 2]
    trials.material = SimpleNamespace(forget=[born, born, tall])  # type: ignore[assignment]
    figures = trials._figures(said, 1.0)  # type: ignore[arg-type]
    assert (figures.refused, figures.forgotten) == (pytest.approx(1 / 3), 0.5)
    trials.material = SimpleNamespace(forget=[tall] * 3)  # type: ignore[assignment]
    assert trials._figures(said, 1.0).forgotten == pytest.approx(1 / 3)  # type: ignore[arg-type]
