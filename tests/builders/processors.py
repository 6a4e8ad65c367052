"""Processors of a tiny LLaVA in which one word is one token: its words and its chat template are the caller's."""

from __future__ import annotations

from typing import Any

from builders.families import IMAGE, PIXELS, SPECIAL
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import PreTokenizer, Whitespace, WhitespaceSplit
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

TEMPLATE = (
    "USER: {% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image> {% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:"
    "{% if not add_generation_prompt %} {{ messages[1]['content'][0]['text'] }}{% endif %}"
)
ANY_TURNS = (
    "{% for message in messages %}{{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }} {% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }} {% else %}<image> {% endif %}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
)


def speaking(words: list[str]) -> LlavaProcessor:
    """Of these words, one question and one reply; anything else is ``<unk>``."""
    known = ["<pad>", "<s>", "</s>", "<unk>", *words]
    return _llava([*known, *(f"word{i}" for i in range(IMAGE - len(known)))], Whitespace(), TEMPLATE)


def numbered() -> LlavaProcessor:
    """Words ``w0``, ``w1``, … for the tokens, and any number of turns; anything else is ``<unk>``."""
    known = ["<pad>", "<s>", "<unk>", "user", "assistant"]
    words = [*known, *(f"w{n}" for n in range(len(known), SPECIAL)), "</s>"]
    words += [f"<extra{n}>" for n in range(IMAGE - len(words))]
    return _llava(words, WhitespaceSplit(), ANY_TURNS, padding_side="left")


def _llava(words: list[str], split: PreTokenizer, template: str, **tokenizer: Any) -> LlavaProcessor:
    core = Tokenizer(WordLevel({word: token for token, word in enumerate([*words, "<image>"])}, unk_token="<unk>"))
    core.pre_tokenizer = split
    size = {"height": PIXELS, "width": PIXELS}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=core,
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            extra_special_tokens={"image_token": "<image>"},
            model_input_names=["input_ids", "attention_mask"],
            **tokenizer,
        ),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
