"""The runner on a real, tiny, random model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders import chat
from builders.records import some_records
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.evaluation.answering import answer
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.run import evaluate_models
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import option_log_likelihoods
from mllmeraser.records.prompts import Prompt

RECORDS = some_records(3)


def few(seed: int) -> Checkpoint:
    """A tiny model that is asked four prompts at a time."""
    return replace(chat.checkpoint(seed), batch_size=4)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    path: Path = tmp_path_factory.mktemp("pictures") / "face.png"
    Image.new("RGB", (16, 16), "red").save(path)
    pictured = [record.model_copy(update={"image": path}) for record in RECORDS]
    models = [
        NamedModel("base", lambda: few(0)),
        NamedModel("same", lambda: few(0)),
        NamedModel("other", lambda: few(1)),
    ]
    return evaluate_models(models, [NamedSet("mixed", [*RECORDS, *pictured])], max_new_tokens=8)


def test_every_record_is_answered_once_by_every_model(results: Results) -> None:
    assert len(results.items) == 3 * 2 * len(RECORDS)
    assert len(results.rows()) == 3 * 3 * 2
    assert {row.n for row in results.rows()} == {3}
    for item in results.items:
        assert len(item.log_likelihoods) == (4 if item.task == "classification" else 0)
        assert all(value < 0 for value in item.log_likelihoods)


def test_the_same_weights_say_the_same_and_others_something_else(results: Results) -> None:
    rows = results.rows()
    for base, same in zip(rows[:6], rows[6:12], strict=True):
        assert same.model_copy(update={"model": "base"}) == base
        assert same.identical_to_base == 1.0
    assert min(row.identical_to_base for row in rows[12:]) < 1.0


def test_accuracy_of_multiple_choice_is_the_likeliest_letter(results: Results) -> None:
    """The prompt lists letters, so A to D are scored, and the first of the scores is that of A."""
    for item in results.items:
        if item.task == "classification":
            best = "ABCD"[item.log_likelihoods.index(max(item.log_likelihoods))]
            assert item.correct == (best == RECORDS[item.index % len(RECORDS)].answer)


def test_log_likelihoods_stand_in_the_order_of_the_options(results: Results) -> None:
    checkpoint = chat.checkpoint(0)
    item = next(item for item in results.items if item.task == "classification" and item.modality == "text")
    prompt = RECORDS[item.index].user_turn
    alone = [option_log_likelihoods(checkpoint, [prompt], [[letter]])[0][0] for letter in "ABCD"]
    assert item.log_likelihoods == pytest.approx(alone, abs=1e-4)


def test_worked_examples_are_seen_with_their_pictures(tmp_path: Path) -> None:
    """`official` on a model that marks pictures as LLaVA does: a picture for every mark, in the order of the text."""
    colours = dict(zip("0123", ("red", "green", "blue", "white"), strict=True))
    records_shown = []
    for record in some_records(4):
        path = tmp_path / f"{record.subject}.png"
        Image.new("RGB", (16, 16), colours[record.subject[-1]]).save(path)
        records_shown.append(record.model_copy(update={"image": path}))
    official, checkpoint = PROTOCOLS["official"], chat.checkpoint()
    questions = official.questions(records_shown, records_shown, "0 forget")  # as seed 0 draws for this set
    prompts = [official.prompt(question, "llava") for question in questions]
    assert {len(prompt.pictures) for prompt in prompts} == {1, 2, 3}  # open questions, choice, cloze
    for question, prompt in zip(questions, prompts, strict=True):
        inputs = encode(checkpoint, [prompt], "right")
        assert len(inputs["pixel_values"]) == prompt.text.count("<image>") == len(question.examples) + 1
        assert prompt.pictures[-1] == question.record.image
    results = evaluate_models(
        [NamedModel("base", chat.checkpoint)],
        [NamedSet("forget", records_shown)],
        protocol=official,
        examples=records_shown,
        max_new_tokens=2,
    )
    assert [(item.index, item.subject) for item in results.items] == [(q.index, q.record.subject) for q in questions]


def test_a_raw_prompt_is_refused_where_pictures_are_marked_otherwise() -> None:
    checkpoint = chat.checkpoint()
    checkpoint.processor.image_token = "<|image_pad|>"
    prompt = Prompt("USER: <image>\nWho?\nASSISTANT:", Image.new("RGB", (16, 16)), raw=True)
    with pytest.raises(InputError, match="use a protocol that goes by the chat template") as error:
        encode(checkpoint, [prompt], "right")
    assert "\n" not in str(error.value)


def test_a_batch_is_of_one_task_and_modality_and_each_is_one_call() -> None:
    checkpoint, calls = chat.checkpoint(), []
    generate = checkpoint.model.generate
    checkpoint.model.generate = lambda **inputs: calls.append(len(inputs["input_ids"])) or generate(**inputs)
    answer(checkpoint, some_records(8), max_new_tokens=2)
    assert calls == [8, 8, 8]
