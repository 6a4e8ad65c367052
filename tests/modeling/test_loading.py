"""P5 and the reload: what is loaded steers exactly as in process, and what is damaged is not loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText, PreTrainedModel

from mllmeraser.modeling_patches.modeling_mllmeraser import STEERING_FILE, SteeringError, steered_class

INDEX = "mllmeraser.safetensors.index.json"


@pytest.fixture
def exported(base_model: PreTrainedModel, family: tiny.Family, tmp_path: Path) -> Path:
    """A directory as the exporter lays it out, two steered layers, three reply steps."""
    return tiny.export(base_model, part_of(base_model, family), tmp_path / "exported")


def part_of(base_model: PreTrainedModel, family: tiny.Family) -> Any:
    return tiny.steering(base_model, tiny.prompt(family, 9, 7), steps=3)


def load(directory: Path, **kwargs: Any) -> Any:
    """The steered model, by the class that lies in the package."""
    model_type = json.loads((directory / "config.json").read_text())["model_type"]
    return steered_class(model_type).from_pretrained(directory, **kwargs)


def edit_config(directory: Path, **changes: Any) -> None:
    """Change keys of ``config.json``, and the seal with them."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    tiny.seal(directory)


def edit_steering(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of the steering file, and every sha256 with them."""
    tensors = load_file(directory / STEERING_FILE)
    change(tensors)
    tiny.write_steering(directory, tensors)
    steering = json.loads((directory / "config.json").read_text())["steering"]
    edit_config(directory, steering=steering | {"sha256": tiny.steering_sha256(directory)})


@torch.no_grad()
def test_a_loaded_model_is_the_one_in_process(
    base_model: PreTrainedModel, family: tiny.Family, exported: Path, code_cache: None
) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    expected = tiny.steered(base_model, part_of(base_model, family))(**batch).logits
    # By the code in the directory, as somebody does who has never heard of us, and by the package's.
    for model in (AutoModelForImageTextToText.from_pretrained(exported, trust_remote_code=True), load(exported)):
        assert torch.equal(model(**batch).logits, expected)
        assert not model.training


@torch.no_grad()
def test_by_auto_model_it_is_the_whole_model_and_never_made_without_its_steering(
    base_model: PreTrainedModel, family: tiny.Family, exported: Path, code_cache: None
) -> None:
    """lmms-eval loads by AutoModel; vLLM builds by it, and fills the weights by a loader that knows nothing of ours."""
    whole = steered_class(family)
    config = json.loads((exported / "config.json").read_text())
    classes = config["auto_map"] | {"AutoModel": config["auto_map"]["AutoModelForImageTextToText"]}
    edit_config(exported, auto_map=classes)
    batch = tiny.prompt(family, 9, 7)
    loaded = AutoModel.from_pretrained(exported, trust_remote_code=True)
    assert type(loaded).__name__ == whole.__name__
    assert torch.equal(loaded(**batch).logits, tiny.steered(base_model, part_of(base_model, family))(**batch).logits)
    with pytest.raises(ValueError, match="load it with from_pretrained"):
        AutoModel.from_config(loaded.config, trust_remote_code=True)
    with pytest.raises(SteeringError, match="load it with from_pretrained"):
        whole._from_config(whole.config_class.from_pretrained(exported))


def test_no_weight_is_random_or_changed(base_model: PreTrainedModel, exported: Path) -> None:
    # transformers renames published weights for its own classes only, and until 5.12 could initialise a subclass's
    # weights again after loading them (transformers #46620).
    model, info = load(exported, output_loading_info=True)
    assert not info["missing_keys"]
    loaded = dict(model.named_parameters())
    for name, tensor in base_model.named_parameters():
        assert torch.equal(loaded.pop(name), tensor), name
    assert all(".steering." in name for name in loaded)


@torch.no_grad()
def test_shards_load_as_one_file_does(base_model: PreTrainedModel, family: tiny.Family, tmp_path: Path) -> None:
    batch, part = tiny.prompt(family, 9, 7), part_of(base_model, family)
    directory = tiny.export(base_model, part, tmp_path / "exported")
    index = json.loads((directory / INDEX).read_text())
    tensors = load_file(directory / tiny.SHARD)
    (directory / tiny.SHARD).unlink()
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, directory / shard, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(names, shard)
    (directory / INDEX).write_text(json.dumps(index))
    tiny.seal(directory)
    assert torch.equal(load(directory)(**batch).logits, tiny.steered(base_model, part)(**batch).logits)


@torch.no_grad()
def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    base_model = tiny.model("qwen2_5_vl", tied=True)
    batch = tiny.prompt("qwen2_5_vl", 9, 7)
    part = part_of(base_model, "qwen2_5_vl")
    directory = tiny.export(base_model, part, tmp_path)
    assert not any("lm_head" in name for name in load_file(directory / tiny.SHARD))
    model = load(directory)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.equal(model(**batch).logits, tiny.steered(base_model, part)(**batch).logits)


@pytest.mark.parametrize("switch", [{"steering_enabled": False}, {"steering_strength": 0.0}])
@torch.no_grad()
def test_a_switch_of_from_pretrained_gives_the_base(
    base_model: PreTrainedModel, family: tiny.Family, exported: Path, code_cache: None, switch: dict[str, Any]
) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    model = AutoModelForImageTextToText.from_pretrained(exported, trust_remote_code=True, **switch)
    assert torch.equal(model(**batch).logits, base_model(**batch).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_steering_is_fp32_and_exact_and_frozen_whatever_the_dtype(exported: Path, dtype: torch.dtype) -> None:
    model = load(exported, dtype=dtype)
    published = load_file(exported / STEERING_FILE)
    assert model.dtype == dtype
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".steering." not in name), name
        if ".steering." in name:
            layer = name.split(".layers.")[1]
            exact = next(tensor for key, tensor in published.items() if key.endswith(f".layers.{layer}"))
            assert torch.equal(parameter, exact), name


# ------------------------------------------------------------------------------------------- not the un-erased model


def test_without_trust_nothing_is_loaded(exported: Path) -> None:
    # With the base's own model_type the native class would be loaded, un-erased.
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForImageTextToText.from_pretrained(exported, trust_remote_code=False)


@pytest.mark.filterwarnings("ignore")  # the native class warns of the foreign model_type before it fails
def test_the_native_class_finds_no_weights(base_model: PreTrainedModel, family: tiny.Family, exported: Path) -> None:
    saved = exported.parent / "saved"
    load(exported).save_pretrained(saved)
    for directory in (exported, saved):
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            type(base_model).from_pretrained(directory)


def test_no_nested_configuration_has_the_native_model_type(family: tiny.Family, exported: Path) -> None:
    # A native configuration class takes such a dictionary for its own, and the native model loads without a word.
    load(exported).save_pretrained(exported.parent / "saved")

    def types(value: Any) -> list[str]:
        if not isinstance(value, dict):
            return []
        here = [value["model_type"]] if "model_type" in value else []
        return here + [kind for item in value.values() for kind in types(item)]

    content = json.loads((exported.parent / "saved" / "config.json").read_text())
    assert family not in types(content)
    assert content["architectures"] == [steered_class(family).__name__]


def _first(tensors: dict[str, torch.Tensor], leaf: str) -> str:
    return min(name for name in tensors if name.endswith(leaf))


DAMAGES: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], object]]] = {
    "not finite": ("not finite", lambda t: t[_first(t, "gate")][0].fill_(float("nan"))),
    "infinite": ("not finite", lambda t: t[_first(t, "direction")][0].fill_(float("inf"))),
    "wrong shape": (
        r"is F32 \(33,\), not F32 \(32,\)",
        lambda t: t.update({_first(t, "gate"): torch.zeros(tiny.HIDDEN + 1)}),
    ),
    "too few reply steps": (
        r"not F32 \(3, 32\)",
        lambda t: t.update({_first(t, "direction"): torch.ones(2, tiny.HIDDEN)}),
    ),
    "bf16": ("not F32", lambda t: t.update({_first(t, "gate"): t[_first(t, "gate")].bfloat16()})),
    "a tensor less": ("is missing", lambda t: t.pop(_first(t, "gate"))),
    "a tensor more": ("not expected", lambda t: t.update({_first(t, "gate").replace("s.1.", "s.3."): torch.ones(1)})),
    "a foreign name": ("not a steering tensor", lambda t: t.update({"model.other.weight": torch.ones(1)})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_wrong_steering_raises_although_its_sha256_is_right(exported: Path, damage: str) -> None:
    message, change = DAMAGES[damage]
    edit_steering(exported, change)
    with pytest.raises(SteeringError, match=message):
        load(exported)


def test_a_flipped_bit_a_cut_and_a_missing_file_raise(exported: Path) -> None:
    file = exported / STEERING_FILE
    content = file.read_bytes()
    for position in (9, len(content) // 2, len(content) - 1):  # in the header, and in the numbers
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(SteeringError, match="sha256"):
            load(exported)
    for size in (0, 8, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(SteeringError, match="sha256"):
            load(exported)
        edit_config(exported, steering=_steering(exported) | {"sha256": tiny.steering_sha256(exported)})
        with pytest.raises(SteeringError, match="not a safetensors file"):
            load(exported)
    file.unlink()
    with pytest.raises(SteeringError, match="not found"):
        load(exported)


GATE = {"kind": "linear", "shape": "identity", "threshold": None, "scope": "prompt", "projection": None}


def _steering(directory: Path) -> dict[str, Any]:
    steering: dict[str, Any] = json.loads((directory / "config.json").read_text())["steering"]
    return steering


def test_steering_of_another_family_raises(exported: Path, family: tiny.Family) -> None:
    other: tiny.Family = "qwen2_5_vl" if family == "llava" else "llava"
    names = (steered_class(family).published_layers, steered_class(other).published_layers)
    edit_steering(exported, lambda t: [t.update({name.replace(*names): t.pop(name)}) for name in list(t)])
    with pytest.raises(SteeringError, match="not a steering tensor of this model"):
        load(exported)


def _edit_shard(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / tiny.SHARD)
    change(tensors)
    save_file(tensors, directory / tiny.SHARD, metadata={"format": "pt"})


def test_a_missing_or_misshapen_base_weight_raises(exported: Path) -> None:
    # transformers goes on with memory as it finds it: finite logits of no model at all.
    name = next(name for name in load_file(exported / tiny.SHARD) if name.endswith("layers.2.mlp.up_proj.weight"))
    index = json.loads((exported / INDEX).read_text())
    less = {**index, "weight_map": {n: file for n, file in index["weight_map"].items() if n != name}}
    (exported / INDEX).write_text(json.dumps(less))
    tiny.seal(exported)
    _edit_shard(exported, lambda t: t.pop(name))
    with pytest.raises(SteeringError, match=r"missing_keys .*layers\.2\.mlp\.up_proj\.weight"):
        load(exported)
    (exported / INDEX).write_text(json.dumps(index))
    tiny.seal(exported)
    _edit_shard(exported, lambda t: t.update({name: torch.zeros(3, 3)}))
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load(exported)
    with pytest.raises(SteeringError, match="mismatched_keys"):
        load(exported, ignore_mismatched_sizes=True)
    (exported / tiny.SHARD).unlink()
    with pytest.raises(OSError, match=tiny.SHARD):
        load(exported)


def test_steering_tensors_that_the_weight_map_leaves_out_raise(exported: Path) -> None:
    index = json.loads((exported / INDEX).read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != STEERING_FILE}
    (exported / INDEX).write_text(json.dumps(index))
    tiny.seal(exported)
    with pytest.raises(SteeringError, match=r"missing_keys .*steering"):
        load(exported)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, "must hold schema 2"),
        ({"schema": 3}, "must hold schema 2"),
        ({"file": "../mllmeraser-steering.safetensors"}, "steering.file"),
        ({"file": "steering.bin"}, "steering.file"),
        ({"file": None}, "steering.file"),
        ({"sha256": None}, "sha256"),
        ({"requests": []}, "at least one request"),
        ({"gate": {**GATE, "kind": "other"}}, r"gate\.kind"),
        ({"gate": {**GATE, "shape": "step"}}, r"gate\.threshold"),
        ({"gate": {**GATE, "shape": "sign"}}, r"gate\.shape"),
        ({"gate": {**GATE, "scope": "conversation"}}, r"gate\.shape"),  # a conversation is sealed or not
        ({"gate": {**GATE, "scope": "reply"}}, r"gate\.scope"),
        ({"gate": {**GATE, "projection": -1}}, r"gate\.projection"),
        ({"gate": {name: value for name, value in GATE.items() if name != "threshold"}}, "threshold"),
        ({"gate": {name: value for name, value in GATE.items() if name != "scope"}}, "scope"),
        ({"edit": "mute"}, "edit"),
        ({"layers": [1, 9]}, "layers"),
        ({"layers": []}, "layers"),
        ({"strength": float("inf")}, "strength"),
        ({"enabled": "no"}, "enabled"),
        ({"reply_steps": 0}, "reply_steps"),
        ({"prompt_positions": "first"}, "prompt_positions"),
    ],
)
def test_a_configuration_that_says_something_else_raises(exported: Path, changes: Any, message: str) -> None:
    steering = _steering(exported)
    if changes.keys() & {"schema", "file", "sha256", "requests"}:
        edit_config(exported, steering={**steering, **changes})
    else:
        edit_config(exported, steering={**steering, "requests": [{**steering["requests"][0], **changes}]})
    with pytest.raises(SteeringError, match=message):
        load(exported)


# ------------------------------------------------------------------------------------------------- saved, and spread


@pytest.mark.parametrize("max_shard_size", ["1GB", "60KB"])
@torch.no_grad()
def test_save_pretrained_and_back_is_bit_equal(
    family: tiny.Family, exported: Path, code_cache: None, max_shard_size: str
) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    model = AutoModelForImageTextToText.from_pretrained(exported, trust_remote_code=True)
    model.save_pretrained(exported.parent / "saved", max_shard_size=max_shard_size)
    names = {path.name for path in (exported.parent / "saved").iterdir()}
    assert {*tiny.CODE, "config.json", INDEX, STEERING_FILE} <= names
    again = AutoModelForImageTextToText.from_pretrained(exported.parent / "saved", trust_remote_code=True)
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    for name, tensor in load_file(exported / STEERING_FILE).items():
        assert torch.equal(load_file(exported.parent / "saved" / STEERING_FILE)[name], tensor)


@torch.no_grad()
def test_a_model_steered_in_process_can_be_saved(
    base_model: PreTrainedModel, family: tiny.Family, code_cache: None, tmp_path: Path
) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    model = tiny.steered(base_model, part_of(base_model, family))
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, trust_remote_code=True)
    assert torch.equal(again(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("switch", [{"steering_enabled": False}, {"steering_strength": 0.0}])
def test_what_is_off_is_not_saved(exported: Path, switch: dict[str, Any]) -> None:
    model = load(exported, **switch)
    with pytest.raises(SteeringError, match="switched off"):
        model.save_pretrained(exported.parent / "saved")
    assert not (exported.parent / "saved").exists()
    with pytest.raises(SteeringError, match="takes keywords"):
        load(exported).save_pretrained(exported.parent / "saved", variant="fp16")


def test_a_decoder_layer_is_never_split_over_devices(base_model: PreTrainedModel, exported: Path) -> None:
    from accelerate import infer_auto_device_map

    model = load(exported)
    names = {type(layer).__name__ for layer in model.get_decoder().layers}
    assert names <= set(model._no_split_modules)  # which transformers names
    assert names == {type(layer).__name__ for layer in base_model.get_decoder().layers}
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    devices = infer_auto_device_map(
        model, {0: size // 3, 1: size // 3, "cpu": size}, no_split_module_classes=list(model._no_split_modules)
    )
    inside = [name for name in devices if ".layers." in name and not name.split(".layers.")[1].isdigit()]
    assert not [name for name in inside if "language_model" in name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device_map", ["auto", "cpu", "disk", "mixed"])
@torch.no_grad()
def test_a_device_map_changes_nothing(
    base_model: PreTrainedModel, family: tiny.Family, exported: Path, device_map: str, dtype: torch.dtype
) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    near = load(exported, dtype=dtype)
    spread: Any = {"disk": {"": "disk"}, "mixed": every_other_layer_on_disk(base_model)}.get(device_map, device_map)
    model = load(exported, dtype=dtype, device_map=spread, offload_folder=exported.parent / "offload")
    if device_map in ("disk", "mixed"):
        assert any(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(model(**batch).logits, near(**batch).logits)
    assert torch.equal(*[m.generate(**batch, max_new_tokens=4, do_sample=False) for m in (model, near)])


def every_other_layer_on_disk(base_model: PreTrainedModel) -> dict[str, str]:
    """A device map that names modules down to the decoder layers."""
    devices = {f"model.{name}": "cpu" for name, _ in base_model.model.named_children() if name != "language_model"}
    devices |= {f"model.language_model.{name}": "cpu" for name, _ in base_model.model.language_model.named_children()}
    del devices["model.language_model.layers"]
    layers = {f"model.language_model.layers.{n}": "disk" if n % 2 else "cpu" for n in range(tiny.LAYERS)}
    return devices | layers | {"lm_head": "disk"}
