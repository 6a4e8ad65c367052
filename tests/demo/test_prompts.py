"""What the demo model is trained on is, byte for byte and pixel for pixel, what the processor makes of a question."""

from __future__ import annotations

import random

import pytest
import torch

from mllmeraser.demo.architecture import CHAT_TEMPLATE, build_processor, training_prompt
from mllmeraser.demo.batches import IGNORED, PictureStore, collate, normalise
from mllmeraser.demo.corpus import training_stream
from mllmeraser.demo.questions import Question
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.inference.encoding import encode, render
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import reply_ids
from mllmeraser.records.prompts import Prompt


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load(CHECKPOINT, dtype="float32")


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    stream = training_stream(random.Random(3))
    return [next(stream) for _ in range(60)]


def asked(question: Question) -> Prompt:
    return Prompt(question.prompt, None if question.picture is None else question.picture.draw())


def test_the_checkpoint_has_the_template_of_the_code(checkpoint: Checkpoint) -> None:
    assert checkpoint.processor.chat_template == CHAT_TEMPLATE
    assert build_processor(checkpoint.processor.tokenizer).chat_template == CHAT_TEMPLATE


def test_a_training_prompt_is_what_the_chat_template_writes(checkpoint: Checkpoint, questions: list[Question]) -> None:
    for question in questions:
        expected = training_prompt(question.prompt, question.picture is not None)
        assert render(checkpoint.processor, asked(question)) == expected
        said = render(checkpoint.processor, asked(question), question.answer)
        assert said.startswith(f"{expected} {question.answer}</s>")


def test_training_tokens_are_those_of_prompt_and_reply(checkpoint: Checkpoint, questions: list[Question]) -> None:
    tokenizer = checkpoint.processor.tokenizer
    for question in questions:
        batch = collate([question], tokenizer, PictureStore(), torch.Generator())
        prompt = encode(checkpoint, [asked(question)], "right")["input_ids"][0].tolist()
        reply = [*reply_ids(checkpoint, asked(question), question.answer).tolist(), tokenizer.eos_token_id]
        assert batch.input_ids[0].tolist() == prompt + reply
        assert batch.labels[0].tolist() == [IGNORED] * len(prompt) + reply


def test_training_pixels_are_those_of_the_processor(checkpoint: Checkpoint, questions: list[Question]) -> None:
    shown = [question for question in questions if question.picture is not None]
    for question in shown[:10]:
        assert question.picture is not None
        expected = encode(checkpoint, [asked(question)], "right")["pixel_values"]
        drawn = normalise(PictureStore()(question.picture)[None])
        torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-6)
