"""The demo model's architecture: a true LLaVA of about three million parameters, with its own tokenizer and processor.

It has eight decoder layers, because a gate is read in a late layer and a direction needs further layers to take effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mllmeraser.demo.portraits import SIZE
from mllmeraser.inference.saving import save_base

VOCABULARY = 1_401  # odd on purpose: nothing may rely on a padded, round vocabulary
PATCH = 16
IMAGE_TOKENS = (SIZE // PATCH) ** 2
BEGIN, END, PAD, UNKNOWN_TOKEN, IMAGE = "<s>", "</s>", "<pad>", "<unk>", "<image>"
MEAN = STD = (0.5, 0.5, 0.5)

# LLaVA-1.5's form: pictures first, then the words. A reply stands between "ASSISTANT: " and the end-of-sequence token.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def training_prompt(prompt: str, with_picture: bool) -> str:
    """The text before a reply, exactly as the chat template writes it (a test compares the bytes)."""
    picture = f"{IMAGE}\n" if with_picture else ""
    return f"USER: {picture}{prompt} ASSISTANT:"


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained on the demo world's text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BEGIN, END, UNKNOWN_TOKEN, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, bpe.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN_TOKEN,
        extra_special_tokens={"image_token": IMAGE},
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast, chat_template: str = CHAT_TEMPLATE) -> LlavaProcessor:
    """A processor that turns a picture of 64 x 64 pixels into 16 image tokens. It uses PIL and needs no torchvision."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=list(MEAN),
        image_std=list(STD),
        do_convert_rgb=True,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )


def vision_config() -> CLIPVisionConfig:
    """The vision tower of both demo models."""
    return CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=96,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    vision = vision_config()
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=8,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )


def build_model(config: LlavaConfig) -> LlavaForConditionalGeneration:
    """A model with random weights, drawn from torch's global generator."""
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
        pad_token_id=config.text_config.pad_token_id,
        max_new_tokens=50,
    )
    return model


def save_checkpoint(model: LlavaForConditionalGeneration, processor: LlavaProcessor, directory: Path) -> None:
    """Write the files of a published LLaVA repository: bf16 safetensors, configs, tokenizer, processor, template."""
    directory.mkdir(parents=True, exist_ok=True)
    save_base(model.to("cpu", torch.bfloat16), directory)
    processor.save_pretrained(directory)
    # transformers 5 writes these settings only to processor_config.json (transformers #44623). Readers of the published
    # layout, and transformers 4, look for preprocessor_config.json.
    settings = json.loads((directory / "processor_config.json").read_text(encoding="utf-8"))["image_processor"]
    settings = dict(settings, image_processor_type="CLIPImageProcessor", processor_class="LlavaProcessor")
    (directory / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    # transformers 5 renamed its generic tokenizer class. transformers 4 knows only the old name, 5 knows both.
    tokenizer_config = directory / "tokenizer_config.json"
    text = tokenizer_config.read_text(encoding="utf-8").replace("TokenizersBackend", "PreTrainedTokenizerFast")
    tokenizer_config.write_text(text, encoding="utf-8")
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors writes files that only the owner can read
