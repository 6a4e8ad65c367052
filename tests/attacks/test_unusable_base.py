"""P14. A base is checked as a whole before it is used: each way to be incomplete is one line with its mend, exit 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import talker
from builders.checkpoints import contents, edit_json, make_bundle
from builders.command_line import Run
from safetensors.torch import load_file, save_file
from transformers import LlavaConfig, LlavaForConditionalGeneration

from mllmeraser.bundle.bundle import Bundle, save_bundle
from mllmeraser.bundle.metadata import WeightFile
from mllmeraser.errors import InputError
from mllmeraser.inference.loading import load
from mllmeraser.inference.source import Source
from mllmeraser.inference.usable import check_base
from mllmeraser.inference.weight_files import beside_sha256, weight_files

Damage = Callable[[Path], None]
TEMPLATE = "{{% for m in messages %}}USER: {0} {{% endfor %}}ASSISTANT:"


def without_tensors(part: str) -> Damage:
    def damage(base: Path) -> None:
        path = base / "model.safetensors"
        kept = {name: tensor for name, tensor in load_file(path).items() if part not in name}
        save_file(kept, path, metadata={"format": "pt"})

    return damage


def edit(name: str, **keys: Any) -> Damage:
    return lambda base: edit_json(base / name, **keys)


def without_keys(name: str, *keys: str) -> Damage:
    def damage(base: Path) -> None:
        value = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps({key: value[key] for key in value if key not in keys}))

    return damage


def token(content: str, number: int) -> Damage:
    """A token is added to the tokenizer, and the embedding is not enlarged."""

    def damage(base: Path) -> None:
        path = base / "tokenizer.json"
        value = json.loads(path.read_text())
        kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        value["added_tokens"].append({"id": number, "content": content, **kind})
        path.write_text(json.dumps(value))

    return damage


def template(content: str) -> Damage:
    return lambda base: (base / "chat_template.jinja").write_text(TEMPLATE.format(content)) and None


def other_shapes(base: Path) -> None:
    text = json.loads((base / "config.json").read_text())["text_config"]
    edit_json(base / "config.json", text_config={**text, "intermediate_size": 40})


def adapter(base: Path) -> None:
    (base / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"a": torch.zeros(1)}, base / "adapter_model.safetensors")


def outside(base: Path) -> None:
    (base / "model.safetensors").rename(base.parent / "elsewhere")
    (base / "model.safetensors").symlink_to(base.parent / "elsewhere")


def to_nothing(base: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "model.safetensors").symlink_to(base / "nothing")


def sharded(base: Path) -> None:
    (base / "model.safetensors").rename(base / "model-1.safetensors")
    weight_map = dict.fromkeys(load_file(base / "model-1.safetensors"), "model-1.safetensors")
    weight_map["lm_head.weight"] = "model-2.safetensors"
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def pickled(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def bare_tokenizer(base: Path) -> None:
    """As a language model's folder, whose settings name a class that is no processor."""
    edit_json(base / "processor_config.json", processor_class="PreTrainedTokenizerFast")


def another_language_model(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    text = {"model_type": "bloom", "hidden_size": 32, "n_layer": 4, "n_head": 4, "vocab_size": 97}
    text |= {"tie_word_embeddings": False}
    for key in ("text_config", "model_type", "architectures"):
        config.pop(key)
    LlavaForConditionalGeneration(LlavaConfig(text_config=text, **config)).save_pretrained(base)


def no_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").unlink()


PRINTED = "prints them as a list; put the chat_template.jinja of the base's publisher there"
PROCESSOR = "processor_config.json"
UNUSABLE: dict[str, tuple[Damage, str]] = {
    "no head": (without_tensors("lm_head"), "no weights for lm_head.weight (1 in all)"),
    "no layer": (without_tensors("model.layers.2."), "no weights for model.language_model.layers.2."),
    "no vision tower": (without_tensors("vision_tower"), "no weights for model.vision_tower."),
    "no projector": (without_tensors("multi_modal_projector"), "no weights for model.multi_modal_projector."),
    "other shapes": (other_shapes, "config.json asks for"),
    "an adapter beside": (adapter, "adapter_config.json: an adapter beside the weights"),
    "a link": (outside, "a link that leaves the base's directory; put the file itself there"),
    "a link to nothing": (to_nothing, "this shard is missing; download the base again"),
    "no shard": (sharded, "model-2.safetensors: this shard is missing; download the base again"),
    "a pickle": (pickled, "pytorch_model.bin, a pickle"),
    "no patch size": (without_keys(PROCESSOR, "patch_size"), 'lacks patch_size; add "patch_size": 8'),
    "no strategy": (
        without_keys(PROCESSOR, "patch_size", "vision_feature_select_strategy"),
        'add "patch_size": 8, "vision_feature_select_strategy": "default"',
    ),
    "another patch size": (
        edit(PROCESSOR, patch_size=4),
        'patch_size is 4, but the model\'s is 8; set "patch_size": 8',
    ),
    "another strategy": (edit(PROCESSOR, vision_feature_select_strategy="full"), 'set "vision_feature_select_strategy'),
    "no additional tokens": (
        without_keys(PROCESSOR, "num_additional_image_tokens"),
        'set "num_additional_image_tokens": 1',
    ),
    "a class of its own": (edit(PROCESSOR, processor_class="LlavaParrot"), "set processor_class to LlavaProcessor"),
    "a bare tokenizer": (bare_tokenizer, "set processor_class to LlavaProcessor"),
    "no settings of pictures": (lambda base: (base / PROCESSOR).unlink(), "copy or download its files again"),
    "no tokenizer": (no_tokenizer, "copy or download its files again"),
    "a token beyond": (token("parrot", 97), "gives 'parrot' the id 97, but the embedding ends at 96"),
    "another mark": (edit("config.json", image_token_index=95), "set image_token_id (image_token_index) to 96"),
    "no pad token": (without_keys("tokenizer_config.json", "pad_token"), 'name one, such as "pad_token": "</s>"'),
    "content as a string": (template("{{ 'a' + m['content'] }}"), "give one that takes content as a list of parts"),
    "a method of strings": (template("{{ m['content'].strip() }}"), "give one that takes content as a list of parts"),
    "content printed": (template("{{ m['content'] | trim }}"), PRINTED),
    "content as JSON": (template("{{ m['content'] | tojson }}"), PRINTED),
    "content that is lost": (template("hello"), "drops or rewrites a turn"),
    "no mark of a picture": (
        template("{% for p in m['content'] if p.text %}{{ p.text }}{% endfor %}"),
        "writes no mark for a picture",
    ),
    "no template": (lambda base: (base / "chat_template.jinja").unlink(), "no usable chat template"),
    "another language model": (another_language_model, "the language model is bloom"),
}


@pytest.fixture
def base(tmp_path: Path, world: Path) -> Path:
    """A base that is whole, in a copy of this test's own."""
    return Path(shutil.copytree(world / "base", tmp_path / "base"))


def vouching(base: Path) -> Bundle:
    """A bundle that records of its base what ``compute`` records."""
    bundle = make_bundle(base)
    found = {name: WeightFile(size=file.size, sha256=file.sha256) for name, file in weight_files(base).items()}
    bundle.metadata.base.weights, bundle.metadata.base.beside_sha256 = found, beside_sha256(base)
    return bundle


@pytest.mark.parametrize("what", UNUSABLE)
def test_it_is_one_line_before_the_weights_are_read(base: Path, what: str) -> None:
    damage, said = UNUSABLE[what]
    check_base(Source(base))
    damage(base)
    with pytest.raises(InputError) as caught:
        check_base(Source(base))
    assert str(caught.value).startswith(str(base))
    assert said in str(caught.value)
    with pytest.raises(InputError) as again:
        load(base)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("what", ["no head", "an adapter beside", "no patch size", "content printed", "a token beyond"])
def test_every_command_and_every_dry_run_says_so(base: Path, world: Path, tmp_path: Path, run: Run, what: str) -> None:
    damage, said = UNUSABLE[what]
    bundle = tmp_path / "b.safetensors"
    save_bundle(vouching(base), bundle)
    assert run("export", base, "--bundle", bundle, "-o", tmp_path / "out", "--dry-run", "--quiet").code == 0
    damage(base)
    before = contents(tmp_path)
    records = ["--forget", world / "forget.jsonl", "--retain", world / "retain.jsonl", "-o", tmp_path / "made"]
    for arguments in (
        ["compute", base, *records, "--dry-run"],
        ["compute", base, *records],
        ["export", base, "--bundle", bundle, "-o", tmp_path / "out", "--dry-run"],
        ["export", base, "--bundle", bundle, "-o", tmp_path / "out"],
        ["export", base, "--bundle", bundle, "-o", tmp_path / "out", "--format", "onnx"],
        ["evaluate", f"base={base}", "--data", f"forget={world / 'forget.jsonl'}"],
        ["interference", base, "--bundle", bundle, "--forget", world / "forget.jsonl"],
        ["baseline", "manu", base, *records],
    ):
        result = run(*arguments, "--quiet")
        assert result.code == 2, arguments
        assert said in result.error, arguments
    assert contents(tmp_path) == before


def test_a_whole_base_is_loaded_though_its_weights_are_tied(tmp_path: Path) -> None:
    from builders import qwen_talker

    for tied in (True, False):
        base = qwen_talker.make_base(tmp_path / f"tied {tied}", tied=tied)
        assert load(base).model_type == "qwen2_5_vl"


def test_generation_settings_of_the_base_do_not_interfere(base: Path) -> None:
    """Whatever they are: a stop word or a time limit would end every reply, a penalty or a ban change it."""
    from mllmeraser.inference.replies import greedy_reply_ids

    wanted = greedy_reply_ids(load(base), talker.prompts(), max_new_tokens=8)
    assert all(len(reply) == 8 for reply in wanted)
    hostile = {
        "stop_strings": ["a", "e", "o"],
        "max_time": 1e-9,
        "max_length": 3,
        "min_length": 2,
        "repetition_penalty": 7.5,
        "no_repeat_ngram_size": 1,
        "bad_words_ids": [[int(wanted[0][0])]],
        "forced_eos_token_id": 5,
        "num_beams": 3,
        "num_return_sequences": 3,
        "do_sample": True,
        "temperature": 9.0,
        "cache_implementation": "static",
        "renormalize_logits": True,
        "sequence_bias": [[[int(wanted[0][0])], -90.0]],
    }
    edit_json(base / "generation_config.json", **hostile)
    found = greedy_reply_ids(load(base), talker.prompts(), max_new_tokens=8)
    assert all(map(torch.equal, found, wanted))
