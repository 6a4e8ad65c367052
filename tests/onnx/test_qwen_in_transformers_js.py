"""A Qwen2.5-VL in transformers.js: random weights, real pictures of two sizes, every token as in PyTorch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import families, graphs, tiny
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from mllmeraser.exporter.base import read_base
from mllmeraser.exporter.onnx.directory import steer_directory
from mllmeraser.exporter.onnx.export import export_base
from mllmeraser.inference.source import Source

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of other people's exporters

SCRIPT = Path(__file__).parent / "clients" / "transformers_js.mjs"
SPECIAL = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]  # from 256 on, after the bytes
IMAGE, TOKENS = 257, 24
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
# Sizes that need no resizing, which the two libraries do differently.
QUESTIONS = [("who is it?", (24, 16)), ("and this one here?", (16, 40)), ("where?", (32, 32))]
NAME = "o"  # the letter that opens the gate of a conversation: in the first two questions


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=SPECIAL[2], chat_template=TEMPLATE)


def random_qwen() -> Any:
    """A model of 4 layers that never stops and gives no special token."""
    names = ("vision_start_token_id", "image_token_id", "vision_end_token_id", "video_token_id")
    config = families.config("qwen2_5_vl")
    config.text_config.vocab_size = 260
    for at, name in enumerate(names, 256):
        setattr(config, name, at)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer().convert_tokens_to_ids(NAME)] *= 100
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 258, None
    model.generation_config.suppress_tokens = [256, 257, 258, 259]
    return model


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A checkpoint with a processor that both libraries read."""
    folder = tmp_path / "base"
    random_qwen().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    processor = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 4096}
    )
    processor.save_pretrained(folder)
    for name, key in (
        ("tokenizer_config.json", "tokenizer_class"),
        ("preprocessor_config.json", "image_processor_type"),
    ):
        value = json.loads((folder / name).read_text())
        value |= {"processor_class": "Qwen2_5_VLProcessor"}
        value[key] = {"tokenizer_class": "Qwen2Tokenizer", "image_processor_type": "Qwen2VLImageProcessor"}[key]
        (folder / name).write_text(json.dumps(value))
    return folder


def inputs_of(text: str, picture: Image.Image) -> dict[str, torch.Tensor]:
    """What PyTorch is given for a question on a picture."""
    processor = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 4096}
    )
    batch = dict(processor(images=[picture], return_tensors="pt"))
    count = int(batch["image_grid_thw"].prod()) // 4
    ids = tokenizer()(f"{SPECIAL[0]}{SPECIAL[1] * count}{SPECIAL[2]}{text}", return_tensors="pt")["input_ids"]
    return {
        **batch,
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).int(),
    }


@pytest.mark.parametrize("scope", ["conversation", "prompt"])
def test_pictures_of_several_sizes(base: Path, packages: Path, tmp_path: Path, scope: str) -> None:
    model, random = random_qwen(), np.random.default_rng(0)
    asked, inputs = [], []
    for number, (text, size) in enumerate(QUESTIONS):
        picture = Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        picture.save(tmp_path / f"{number}.png")
        asked.append({"prompt": text, "image": str(tmp_path / f"{number}.png")})
        inputs.append(inputs_of(text, picture))
    (tmp_path / "questions.json").write_text(json.dumps(asked))
    if scope == "conversation":
        part = tiny.recognising(model, name=tokenizer().convert_tokens_to_ids(NAME))
    else:
        part = tiny.steering(model, inputs[0], kind="kernel", shape="step", threshold=0.5, steps=4, gate_layer=1)
    (tmp_path / "graphs").mkdir()
    export_base(read_base(Source(base)), tmp_path / "graphs", "fp32", lambda line: None)
    steer_directory(tmp_path / "graphs", [graphs.bundle(part, family="qwen2_5_vl")], tmp_path / "out")
    answers = {}
    for which in ("steered", "base"):
        call = ["node", SCRIPT, tmp_path / "out", tmp_path / "questions.json", tmp_path / "answers.json", which]
        done = subprocess.run(call, cwd=packages, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        answers[which] = json.loads((tmp_path / "answers.json").read_text())
    for which, torch_model in (("base", model), ("steered", tiny.steered(model, part))):
        for question, batch, found in zip(asked, inputs, answers[which], strict=True):
            with torch.no_grad():
                expected = torch_model.generate(**batch, max_new_tokens=TOKENS, do_sample=False)
            assert found == expected[0, batch["input_ids"].shape[1] :].tolist(), (which, question)
    changed = [ours != theirs for ours, theirs in zip(answers["steered"], answers["base"], strict=True)]
    assert changed == [True, scope == "conversation", False]
