"""P4 for a model that is not run as it comes: compiled, copied, checkpointed, adapted, quantised."""

from __future__ import annotations

import copy
import pickle
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from torch import Tensor, nn
from transformers import CompileConfig, DynamicCache, PreTrainedModel, StaticCache

from mllmeraser.modeling_patches import modeling_mllmeraser as modeling
from mllmeraser.modeling_patches import steering_mllmeraser
from mllmeraser.modeling_patches.format_mllmeraser import SteeringError

NEW = 5


def both(base_model: PreTrainedModel, family: tiny.Family, steps: int, **kwargs: Any) -> tuple[Any, Any, Any]:
    """A picture prompt, a steering for it and the steered model."""
    batch = tiny.prompt(family, 9, 7, image=True)
    part = tiny.steering(base_model, batch, steps=steps, **kwargs)
    return batch, part, tiny.steered(base_model, part)


def greedy(model: Any, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
    tokens: Tensor = model.generate(**batch, max_new_tokens=NEW, do_sample=False, **kwargs)
    return tokens


def fresh(family: tiny.Family, part: Any) -> Any:
    """A model that has not run: transformers leaves hooks behind that cannot be pickled, on every model."""
    return tiny.steered(tiny.model(family), part)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "kind"), [(1, "linear"), (3, "kernel")])
@torch.no_grad()
def test_compiled_as_one_graph(base_model: PreTrainedModel, family: tiny.Family, steps: int, kind: str) -> None:
    batch, _, model = both(base_model, family, steps, kind=kind)
    torch._dynamo.reset()
    # The backend "eager" runs the captured graph as it is: no rounding of a code generator, and no minute of building.
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    given = tiny.without_image(batch) if family == "qwen2_5_vl" else batch  # its own picture code breaks the graph
    assert torch.equal(compiled(**given, use_cache=False).logits, model(**given, use_cache=False).logits)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_decoding_compiled_as_one_graph(base_model: PreTrainedModel, family: tiny.Family, steps: int) -> None:
    batch, _, model = both(base_model, family, steps)
    torch._dynamo.reset()
    how = CompileConfig(backend="eager", fullgraph=True, mode=None)
    how._compile_all_devices = True  # generate leaves it to accelerators otherwise
    compiled = greedy(model, batch, cache_implementation="static", compile_config=how)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert torch.equal(compiled, greedy(model, batch))


def conversation(family: tiny.Family) -> tuple[Any, Any, dict[str, Tensor]]:
    """A base, the same steered as a conversation, and four prompts, of which the first two are the forgotten's."""
    base = tiny.knowing(family)
    words = tiny.naming(tiny.prompt(family, 14, 14, 14, 11), [0, 1])
    return base, tiny.steered(base, tiny.recognising(base)), words


def assert_sealed(native: Tensor, plain: Tensor) -> None:
    """The first two rows are alike and not the base's; the others are the base's."""
    assert torch.equal(native[2:], plain[2:])
    assert torch.equal(native[0], native[1])
    assert not torch.equal(native[0], plain[0])


@pytest.mark.slow
@torch.no_grad()
def test_a_conversation_compiled_as_one_graph(family: tiny.Family) -> None:
    base, model, words = conversation(family)
    logits = []
    for one in (model, base):
        torch._dynamo.reset()
        logits.append(torch.compile(one, fullgraph=True, backend="eager")(**words, use_cache=False).logits)
    assert_sealed(*logits)


@pytest.mark.slow
@torch.no_grad()
def test_a_conversation_whose_decoding_is_compiled(family: tiny.Family) -> None:
    base, model, words = conversation(family)
    how = CompileConfig(backend="eager", fullgraph=True, mode=None)
    how._compile_all_devices = True
    replies = []
    for one in (model, base):
        torch._dynamo.reset()
        replies.append(greedy(one, words, cache_implementation="static", compile_config=how)[:, 14:])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert_sealed(*replies)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
@torch.no_grad()
def test_a_compiled_loop_needs_a_cache_of_the_model_itself(kind: type) -> None:
    base, model, words = conversation("llava")
    text, token = base.config.get_text_config(), torch.full((4, 1), 9)
    name = "cache" if "cache" in signature(base.forward).parameters else "past_key_values"  # until 5.23 goes

    def cache() -> Any:
        return kind(config=text, **({"max_cache_len": 20} if kind is StaticCache else {}))

    logits = []
    for one in (model, base):  # the prompt as it comes, what follows compiled
        torch._dynamo.reset()
        compiled, own = torch.compile(one, fullgraph=True, backend="eager"), cache()
        one(input_ids=words["input_ids"], **{name: own})
        logits.append(torch.cat([compiled(input_ids=token, **{name: own}).logits for _ in range(2)], dim=1))
    assert_sealed(*logits)
    torch._dynamo.reset()
    compiled, own = torch.compile(model, backend="eager"), cache()
    with pytest.raises(SteeringError, match="run the prompt again"):
        for ids in (words["input_ids"], token):
            compiled(input_ids=ids, **{name: own})


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_pickled_model_steers_in_another_process(family: tiny.Family, monkeypatch: pytest.MonkeyPatch) -> None:
    base_model = tiny.model(family)
    batch, part, model = both(base_model, family, 3)
    content = pickle.dumps(fresh(family, part))
    monkeypatch.setattr(steering_mllmeraser, "_steered", {})  # as in a process that has not made the classes yet
    again = pickle.loads(content)
    assert type(again.get_decoder().layers[1]) is not type(model.get_decoder().layers[1])
    assert torch.equal(greedy(again, batch), greedy(model, batch))


@torch.no_grad()
def test_a_deep_copy_steers_by_itself(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch, _, model = both(base_model, family, 3)
    expected, twin = greedy(model, batch), copy.deepcopy(model)
    model.get_decoder().layers[1].steering["0"].direction.zero_()
    assert torch.equal(greedy(twin, batch), expected)
    assert not torch.equal(model(**batch).logits, twin(**batch).logits)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # the name of transformers 4 and 5
def test_gradient_checkpointing_changes_no_gradient(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7)
    labels = batch["input_ids"].clone()
    labels[:, :6] = -100
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(tiny.steered(base_model, tiny.steering(base_model, batch, steps=3, gate_layer=0))).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(**batch, labels=labels, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert not any(".steering." in name for name in gradients[0])
    assert any(".layers.0." in name for name in gradients[0])
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft uses the older name
@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_lora_on_top(base_model: PreTrainedModel, family: tiny.Family, steps: int) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    batch, part, model = both(base_model, family, steps)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(model), lora)
    plain = get_peft_model(copy.deepcopy(base_model), lora)
    set_peft_model_state_dict(plain, get_peft_model_state_dict(adapted))
    native = adapted(**batch).logits
    assert torch.equal(native, oracle.logits(plain.base_model.model, *part, batch))
    assert not torch.equal(native, model(**batch).logits)
    assert not torch.equal(native, plain(**batch).logits)
    text = tiny.without_image(batch)
    assert torch.equal(greedy(adapted, text)[:, 9:], oracle.generate(plain.base_model.model, *part, text, **greedily()))
    assert not any(p.requires_grad for n, p in adapted.named_parameters() if ".steering." in n)


def greedily() -> dict[str, Any]:
    return {"max_new_tokens": NEW, "do_sample": False}


@pytest.mark.filterwarnings("ignore:.*quantiz")  # torch announces the successor of its own int8
@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_dynamic_int8(base_model: PreTrainedModel, family: tiny.Family, steps: int) -> None:
    # One forward: its scales come from all columns there are, so that decoding with a cache rounds differently.
    batch, part, model = both(base_model, family, steps)
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    plain = torch.ao.quantization.quantize_dynamic(copy.deepcopy(base_model), {nn.Linear}, dtype=torch.qint8)
    native = quantised(**batch).logits
    assert torch.equal(native, oracle.logits(plain, *part, batch))
    assert not torch.equal(native, model(**batch).logits)


@pytest.mark.filterwarnings("ignore")  # the libraries' own, about a machine without an accelerator
@pytest.mark.parametrize("way", ["torchao int8", "bitsandbytes int8", "bitsandbytes 4-bit"])
@torch.no_grad()
def test_quantised_while_loading(tmp_path: Path, way: str) -> None:
    pytest.importorskip(way.split()[0])
    base_model = tiny.model("llava", hidden=128)  # a 4-bit block has 64 values
    batch = tiny.prompt("llava", 9, 7)
    part = tiny.steering(base_model, batch, steps=3)
    directory = tiny.export(base_model, part, tmp_path / "exported")
    base_model.save_pretrained(tmp_path / "base")
    how = {"quantization_config": _quantisation(way), "device_map": "cpu"}
    model = modeling.steered_class("llava").from_pretrained(directory, **copy.deepcopy(how))
    plain = type(base_model).from_pretrained(tmp_path / "base", **copy.deepcopy(how))
    assert all(p.dtype == torch.float32 for n, p in model.named_parameters() if ".steering." in n)
    native = model(**batch).logits
    assert torch.equal(native, oracle.logits(plain, *part, batch))
    assert not torch.equal(plain(**batch).logits, base_model(**batch).logits)
    assert not torch.equal(native, plain(**batch).logits)


def _quantisation(way: str) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if way == "torchao int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    if way == "bitsandbytes int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
