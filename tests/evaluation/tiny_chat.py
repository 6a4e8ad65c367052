"""A random LLaVA that can be talked to: the tiny model of tests/modeling with a tokenizer, processor and template."""

from __future__ import annotations

import sys
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1] / "modeling"))

import tiny
from fixtures import JOBS

from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.source import Source

TEMPLATE = (
    "USER: {% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image> {% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:"
    "{% if not add_generation_prompt %} {{ messages[1]['content'][0]['text'] }}{% endif %}"
)


def checkpoint(seed: int = 0) -> Checkpoint:
    """A loaded checkpoint with random weights; two of one seed are equal."""
    known = ["<pad>", "<s>", "</s>", "<unk>", *"ABCD", *JOBS, "USER", "ASSISTANT", ":", "."]
    vocabulary = known + [f"word{i}" for i in range(tiny.VOCAB - 1 - len(known))] + ["<image>"]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_input_names=["input_ids", "attention_mask"],
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return Checkpoint(tiny.model("llava", seed), processor, Source(Path("tiny")), "llava", steered=False)
