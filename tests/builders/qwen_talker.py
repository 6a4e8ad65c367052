"""A random Qwen2.5-VL of the true architecture on disk that can be asked, and pictures of many sizes.

Its processor is the real one with transformers' PIL picture processor, and without a video processor, which needs
torchvision.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from builders import families, talker, tiny
from builders.talker import WORDS
from PIL import Image
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.video_processing_utils import BaseVideoProcessor

from mllmeraser.inference.processor import pictures_only
from mllmeraser.records.prompts import Prompt

SIZES = ((16, 16), (24, 16), (8, 32), (50, 20), (13, 7), (100, 90))  # width, height
SPECIAL = {"<|vision_start|>": families.VISION_START, "<|vision_end|>": families.SPECIAL}
SPECIAL |= {"<|image_pad|>": families.IMAGE, "<|video_pad|>": families.VIDEO}
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make_base(directory: Path, seed: int = 0, tied: bool = False) -> Path:
    """Write a checkpoint with random weights, in the files of a published one; two of one seed are equal."""
    torch.manual_seed(seed)
    config = families.config("qwen2_5_vl", tied=tied)
    tiny.endless(Qwen2_5_VLForConditionalGeneration(config)).save_pretrained(directory)
    whole = processor()
    whole.save_pretrained(directory)
    (directory / "processor_config.json").unlink()
    pictures = whole.image_processor.to_dict() | {"processor_class": "Qwen2_5_VLProcessor"}
    (directory / "preprocessor_config.json").write_text(json.dumps(pictures))
    return directory


def image_processor(
    patch: int = 4, merge: int = 2, frames: int = 2, *, smallest: int = 8 * 8, largest: int = 32 * 32
) -> Qwen2VLImageProcessorPil:
    """Pictures become multiples of patch × merge pixels, between ``smallest`` and ``largest`` of them in all."""
    size = {"shortest_edge": smallest, "longest_edge": largest}
    return Qwen2VLImageProcessorPil(patch_size=patch, merge_size=merge, temporal_patch_size=frames, size=size)


def processor() -> ProcessorMixin:
    """A tokenizer of whole words, and dynamic resolution."""
    known = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    vocabulary = {word: i for i, word in enumerate(known)}
    vocabulary |= {f"word{i}": i for i in range(len(known), min(SPECIAL.values()))} | SPECIAL
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Split(Regex(r"\s+|(?=[.?:])"), "removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL),
        model_input_names=["input_ids", "attention_mask"],
    )
    made = pictures_only(Qwen2_5_VLProcessor)
    return made(image_processor(), tokenizer, BaseVideoProcessor(), chat_template=TEMPLATE)


def picture(number: int, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture of noise; each number has its own, and its own size."""
    width, height = size or SIZES[number % len(SIZES)]
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def prompts() -> list[Prompt]:
    """Of mixed lengths, without a picture and with pictures of every size."""
    return [
        Prompt("What does person one do?", None),
        Prompt("Who is this?", picture(0)),
        Prompt("tell me please the job of person two in the city of Graz", None),
        Prompt("Where does this person live? tell me the city please.", picture(1)),
        Prompt("Who?", picture(2)),
        Prompt("What is the job of this person?", picture(3)),
        Prompt("Who is this person?", picture(4)),
        Prompt("Where does this person live?", picture(5)),
    ]


def write_people(path: Path, people: range) -> Path:
    """As ``talker.write_people``, with pictures of noise and of many sizes."""
    talker.write_people(path, people)
    for number in people:
        picture(number).save(path.parent / f"{path.stem}-{number}.png")
    return path
