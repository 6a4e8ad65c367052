"""The runner on a real, tiny, random model."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_chat
from fixtures import records
from PIL import Image

from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.run import evaluate
from mllmeraser.inference.replies import option_log_likelihoods

SAMPLES = records(3)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    path: Path = tmp_path_factory.mktemp("pictures") / "face.png"
    Image.new("RGB", (16, 16), "red").save(path)
    pictured = [sample.model_copy(update={"image": path}) for sample in SAMPLES]
    models = [
        NamedModel("base", lambda: tiny_chat.checkpoint(0)),
        NamedModel("same", lambda: tiny_chat.checkpoint(0)),
        NamedModel("other", lambda: tiny_chat.checkpoint(1)),
    ]
    return evaluate(models, [NamedSet("mixed", [*SAMPLES, *pictured])], max_new_tokens=8, batch_size=4)


def test_every_record_is_answered_once_by_every_model(results: Results) -> None:
    assert len(results.items) == 3 * 2 * len(SAMPLES)
    assert len(results.rows()) == 3 * 3 * 2
    assert {row["n"] for row in results.rows()} == {3}
    for item in results.items:
        assert len(item.log_likelihoods) == (4 if item.task == "classification" else 0)
        assert all(value < 0 for value in item.log_likelihoods)


def test_the_same_weights_say_the_same_and_others_something_else(results: Results) -> None:
    rows = results.rows()
    for base, same in zip(rows[:6], rows[6:12], strict=True):
        assert {**same, "model": "base"} == base
        assert same["identical_to_base"] == 1.0
    assert min(row["identical_to_base"] for row in rows[12:]) < 1.0


def test_accuracy_of_multiple_choice_is_the_likeliest_letter(results: Results) -> None:
    """The prompt lists letters, so A to D are scored, and the first of the scores is that of A."""
    for item in results.items:
        if item.task == "classification":
            best = "ABCD"[item.log_likelihoods.index(max(item.log_likelihoods))]
            assert item.correct == (best == SAMPLES[item.index % len(SAMPLES)].answer)


def test_log_likelihoods_stand_in_the_order_of_the_options(results: Results) -> None:
    checkpoint = tiny_chat.checkpoint(0)
    item = next(item for item in results.items if item.task == "classification" and item.modality == "text")
    prompt = SAMPLES[item.index].user_turn
    alone = [option_log_likelihoods(checkpoint, [prompt], [[letter]])[0][0] for letter in "ABCD"]
    assert item.log_likelihoods == pytest.approx(alone, abs=1e-4)
