"""The tokens that begin a user's turn, found in the chat template."""

from __future__ import annotations

import pytest
from builders import processors
from transformers import AutoProcessor

from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.errors import InputError
from mllmeraser.inference.encoding import beginning_of_turn

WORDS = ["Yes", "2", "or", "3", "It", "is", "so", ".", "Four", ",", "Is", "it", "?"]
TURNS = (
    "{% for message in messages %}<{{ message['role'] }}> {% for part in message['content'] %}{{ part['text'] }}"
    "{% endfor %} </s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_the_demos_template() -> None:
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    found = beginning_of_turn(processor)
    assert processor.tokenizer.convert_ids_to_tokens(found) == ["</s>", "USER", ":"]


def test_it_stands_before_every_later_turn() -> None:
    processor = processors.speaking([*WORDS, "<", "user", ">", "assistant"])
    processor.chat_template = TURNS
    assert processor.tokenizer.convert_ids_to_tokens(beginning_of_turn(processor)) == ["</s>", "<", "user", ">"]


def test_a_template_without_a_second_turn() -> None:
    with pytest.raises(InputError, match="turn"):
        beginning_of_turn(processors.speaking([*WORDS, "USER", ":"]))


def test_a_template_that_writes_nothing_between_turns() -> None:
    processor = processors.speaking(WORDS)
    processor.chat_template = "{% for message in messages %}{{ message['content'][0]['text'] }} {% endfor %}"
    with pytest.raises(InputError, match="--until conversation"):
        beginning_of_turn(processor)
