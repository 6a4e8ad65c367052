"""P5. Those who do not ask our loader: native classes, converters, savers, adapters. None gets the un-erased model."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from builders import tiny
from builders.checkpoints import edit_json, make_base, make_bundle
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, PreTrainedModel

from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.format_mllmeraser import SHARD, STEERING_FILE
from mllmeraser.modeling_patches.modeling_mllmeraser import SteeringError, steered_class

Load = Callable[..., Any]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An export of a base in several shards whose parts name their own classes, as published ones do."""
    base = make_base(tmp_path / "base", sharded=True)
    config = json.loads((base / "config.json").read_text())
    parts = {"text_config": "LlamaForCausalLM", "vision_config": "CLIPVisionModel"}
    edit_json(base / "config.json", **{part: {**config[part], "architectures": [name]} for part, name in parts.items()})
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    return tmp_path / "out"


# ------------------------------------------------------------------------------------------ converters, native class


def chosen_by_a_converter(directory: Path) -> tuple[str | None, list[str]]:
    """The class and the weights that llama.cpp's ``convert_hf_to_gguf.py`` takes, by its own rules."""
    config = json.loads((directory / "config.json").read_text())
    parts = [config.get("text_config", {}).get("architectures"), config.get("architectures")]
    names = next((part for part in parts if part), [])
    files = [path.name for path in directory.iterdir()]
    weights = [name for name in files if fnmatch.fnmatch(name, "model*.safetensors")]
    return (names[0] if names else None), weights or [n for n in files if fnmatch.fnmatch(n, "pytorch_model*.bin")]


def test_a_converter_finds_neither_a_class_it_knows_nor_weights(directory: Path) -> None:
    architecture, weights = chosen_by_a_converter(directory)
    assert architecture is not None
    assert architecture.startswith("MllmEraser")
    assert weights == []
    known = chosen_by_a_converter(directory.parent / "base")
    assert known[0] == "LlamaForCausalLM"
    assert known[1] != []


def test_what_is_saved_again_gives_a_converter_nothing_either(directory: Path, tmp_path: Path) -> None:
    """Also of a model that was steered in memory, whose configuration is the base's own."""
    base = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    base.config.text_config.architectures = ["LlamaForCausalLM"]
    part = make_bundle(tmp_path / "base")
    tensors = {name: torch.from_numpy(value) for name, value in part.tensors.items()}
    steered_class("llava").from_base(base, part.steering(), tensors).save_pretrained(tmp_path / "saved")
    steered_class("llava").from_pretrained(directory).save_pretrained(tmp_path / "again", max_shard_size="60KB")
    for saved in (tmp_path / "saved", tmp_path / "again"):
        architecture, weights = chosen_by_a_converter(saved)
        assert str(architecture).startswith("MllmEraser")
        assert weights == []
        weights_there = {path.name for path in saved.glob("*.safetensors")} - {STEERING_FILE}
        assert weights_there
        assert all(SHARD.fullmatch(name) for name in weights_there)
        steered_class("llava").from_pretrained(saved)


def test_fewer_shards_saved_over_more_leave_none_behind(directory: Path) -> None:
    model = steered_class("llava").from_pretrained(directory)
    model.save_pretrained(directory, max_shard_size="1GB")
    assert [path.name for path in directory.glob("mllmeraser-base-*")] == ["mllmeraser-base-00001-of-00001.safetensors"]
    steered_class("llava").from_pretrained(directory)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", [None, "mllmeraser", "unfinished", "base", "steering"])
@pytest.mark.parametrize("with_config", [False, True], ids=["its own configuration", "the base's"])
@pytest.mark.parametrize("saved", [False, True], ids=["exported", "saved"])
def test_a_native_class_finds_no_weights_under_any_variant(
    directory: Path, tmp_path: Path, variant: str | None, with_config: bool, saved: bool
) -> None:
    native: Any = steered_class("llava").native_class
    config = {"config": native.config_class.from_pretrained(tmp_path / "base")} if with_config else {}
    if saved:
        steered_class("llava").from_pretrained(directory).save_pretrained(directory)
    with pytest.raises(OSError, match="no file named"):
        native.from_pretrained(directory, variant=variant, **config)
    native.from_pretrained(tmp_path / "base", **config)  # it can


# ------------------------------------------------------------------------------------------------- the class by hand


def unfilled_on_meta(cls: Any, config: Any) -> Any:
    with torch.device("meta"):
        model = cls(config)
    return model.to_empty(device="cpu")


@pytest.mark.parametrize("make", [lambda cls, config: cls(config), unfilled_on_meta], ids=["made", "emptied"])
@pytest.mark.parametrize("projection", [None, 16])
def test_a_model_filled_without_its_steering_raises(tmp_path: Path, make: Load, projection: int | None) -> None:
    base = tiny.knowing("llava")
    cls, part = steered_class("llava"), tiny.recognising(base, projection=projection)
    config = cls.config_class.from_pretrained(tiny.export(base, part, tmp_path / "out"))
    model = make(cls, config).eval()
    missing = model.load_state_dict(base.state_dict(), strict=False).missing_keys
    assert any(".steering." in name for name in missing)
    with pytest.raises(SteeringError, match="never filled"), torch.no_grad():
        model(**tiny.prompt("llava", 5))
    steering = {name: value for name, value in tiny.steered(base, part).state_dict().items() if name in missing}
    model.load_state_dict(steering, strict=False)
    with torch.no_grad():
        assert model(**tiny.prompt("llava", 5)).logits.isfinite().all()


def test_one_tensor_less_is_never_a_gate_that_stays_closed(tmp_path: Path) -> None:
    """A projection cannot be NaN; that of zeros reads nothing."""
    base = tiny.knowing("llava")
    part = tiny.recognising(base)
    state, cls = tiny.steered(base, part).state_dict(), steered_class("llava")
    config = cls.config_class.from_pretrained(tiny.export(base, part, tmp_path / "out"))
    for name in [name for name in state if ".steering." in name]:
        model = cls(config).eval()
        model.load_state_dict({key: value for key, value in state.items() if key != name}, strict=False)
        with pytest.raises(SteeringError, match="never filled"), torch.no_grad():
            model(**tiny.prompt("llava", 5))


# ------------------------------------------------------------------------------- what transformers follows elsewhere


def adapter(directory: Path) -> None:
    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(directory.parent / "base"),
        "r": 1,
        "target_modules": [],
    }
    (directory / "adapter_config.json").write_text(json.dumps(content))


def own_generate(directory: Path) -> None:
    (directory / "custom_generate").mkdir()
    code = f"def generate(model, **kwargs):\n    open({str(directory.parent / 'canary')!r}, 'w')\n"
    (directory / "custom_generate" / "generate.py").write_text(code)


@pytest.mark.parametrize("follow", [adapter, own_generate])
@pytest.mark.parametrize("listed", [False, True], ids=["beside", "listed"])
def test_what_is_followed_elsewhere_is_refused_and_named(
    directory: Path, follow: Callable[[Path], None], listed: bool, code_cache: None
) -> None:
    follow(directory)
    if listed:  # by a manifest that somebody wrote anew
        from attacks.test_hostile_checkpoint import forge

        forge(directory)
    name = "adapter_config.json" if follow is adapter else "custom_generate"
    for load in (steered_class("llava").from_pretrained, AutoModelForImageTextToText.from_pretrained):
        with pytest.raises(ValueError, match=name):
            load(directory, trust_remote_code=True)
    checks = {check.name: check for check in verify(directory).checks}
    assert not checks["fails closed"].ok
    assert name in checks["fails closed"].detail
    assert "transformers" in checks["fails closed"].detail
    assert not checks["loads"].ok
    assert not (directory.parent / "canary").exists()


# ------------------------------------------------------------------------------------------------------------ saving


def set_off(model: Any) -> None:
    for request in model.config.steering["requests"]:
        request["enabled"] = False


def set_weak(model: Any) -> None:
    for request in model.config.steering["requests"]:
        request["strength"] = 0.0


def set_backwards(model: Any) -> None:
    model.config.steering["requests"][0]["strength"] = -1.0


def set_closed(model: Any) -> None:
    model.config.steering["requests"][0]["gate"]["threshold"] = 1e9


def set_shut(model: Any) -> None:
    """The threshold in the model too, as if it had been made so."""
    set_closed(model)
    for module in model._steering_modules():
        vars(module)["request"] = module.request.__class__(**{**vars(module.request), "threshold": 1e9})
    model._steering.requests = tuple(r.__class__(**{**vars(r), "threshold": 1e9}) for r in model._steering.requests)


def set_switch(model: Any) -> None:
    model.config.steering_enabled = False


def set_strength(model: Any) -> None:
    model.config.steering_strength = 0.0


@pytest.mark.parametrize("kind", ["linear", "kernel"])
@pytest.mark.parametrize(
    "change",
    [set_off, set_weak, set_backwards, set_closed, set_shut, set_switch, set_strength],
    ids=lambda f: f.__name__,
)
def test_a_model_that_would_not_steer_is_not_saved(tmp_path: Path, change: Callable[[Any], None], kind: str) -> None:
    base = tiny.knowing("llava")
    model = tiny.steered(base, tiny.recognising(base, kind=kind))
    model.save_pretrained(tmp_path / "before")
    change(model)
    with pytest.raises(SteeringError):
        model.save_pretrained(tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_one_request_of_two_may_be_off(tmp_path: Path) -> None:
    base = tiny.knowing("llava")
    model = tiny.steered(base, tiny.merged(tiny.recognising(base), tiny.recognising(base, seed=6)))
    model.config.steering["requests"][1]["enabled"] = False
    model.save_pretrained(tmp_path / "saved")
    steered_class("llava").from_pretrained(tmp_path / "saved")


def test_requests_by_keyword_are_the_sealed_ones(directory: Path) -> None:
    """The keyword replaces the whole dictionary: without this, a threshold of 1e9 would be a switch nobody counts."""
    load, steering = (
        steered_class("llava").from_pretrained,
        json.loads((directory / "config.json").read_text())["steering"],
    )
    request = steering["requests"][0]
    weaker = load(directory, steering={**steering, "requests": [{**request, "strength": 0.5, "enabled": False}]})
    assert weaker.config.steering["requests"][0]["strength"] == 0.5
    for changed in ({"gate": {**request["gate"], "threshold": 1e9}}, {"layers": [1]}, {"reply_steps": 2}):
        given = {**steering, "requests": [{**request, **changed}]}
        with pytest.raises(SteeringError):
            load(directory, steering=given)
        config = steered_class("llava").config_class.from_pretrained(directory)
        config.steering = given
        with pytest.raises(SteeringError):
            load(directory, config=config)


def test_a_model_is_not_pushed_by_itself(directory: Path) -> None:
    model = steered_class("llava").from_pretrained(directory)
    for push in (
        lambda: model.push_to_hub("org/name"),
        lambda: model.push_to_hub("org/name", private=False),
        lambda: model.save_pretrained(directory.parent / "saved", push_to_hub=True),
    ):
        with pytest.raises(SteeringError, match="mllmeraser push DIR org/name"):
            push()
    assert not (directory.parent / "saved").exists()


def test_nobody_else_saves_model_or_configuration(directory: Path, tmp_path: Path) -> None:
    model = steered_class("llava").from_pretrained(directory)
    for save in (
        lambda where: PreTrainedModel.save_pretrained(model, where),
        lambda where: model.native_class.save_pretrained(model, where),
        model.config.save_pretrained,
    ):
        with pytest.raises(SteeringError, match="saved with its model"):
            save(tmp_path / "saved")
        assert {path.suffix for path in (tmp_path / "saved").glob("*")} <= {".py"}  # no weights, no configuration


@pytest.mark.filterwarnings("ignore")
def test_weights_taken_out_of_a_model_are_marked(directory: Path, tmp_path: Path) -> None:
    """Not refused, because everything that trains or moves a model asks for them; the steering is reported."""
    model, native = steered_class("llava").from_pretrained(directory), tiny.model("llava")
    with pytest.raises(RuntimeError, match=r"Unexpected key.*\.steering\."):
        native.load_state_dict(model.state_dict())
    accelerate.Accelerator().save_model(model, tmp_path / "saved")
    (weights,) = (tmp_path / "saved").glob("*.safetensors")
    assert any(".steering." in name for name in load_file(weights))
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    native.config.save_pretrained(tmp_path / "saved")
    _, info = type(native).from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert any(".steering." in name for name in info["unexpected_keys"])


def test_the_index_is_named_to_nobody(directory: Path, tmp_path: Path) -> None:
    """transformers would follow ``transformers_weights`` of a configuration; ours is set while loading only."""
    model = steered_class("llava").from_pretrained(directory)
    assert "transformers_weights" not in vars(model.config)
    model.save_pretrained(tmp_path / "saved")
    for where in (directory, tmp_path / "saved"):
        assert "transformers_weights" not in (where / "config.json").read_text()
