"""The checks of one exported checkpoint under whatever transformers runs this; see ``transformers_matrix.py``.

    python matrix_probe.py DIRECTORY

DIRECTORY holds ``base``, its exports ``export``, ``thin``, ``token`` and ``sealed``, their steering in
``steering.json`` and ``bundle.safetensors`` (of the last: ``sealed.json`` and ``sealed.safetensors``), and two prompts.
Prints a JSON list of ``{"check", "ok", "detail"}``. The oracle is the same code as in the tests: hooks on this
version's native model.
``PYTHONPATH`` names the folder ``tests``, where it is found.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from builders import oracle
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

GREEDY = {"max_new_tokens": 5, "do_sample": False}
BEAMS = {"max_new_tokens": 4, "do_sample": False, "num_beams": 2, "num_return_sequences": 2}
STEERING_FILE = "mllmeraser-steering.safetensors"


class Checkpoint:
    """What lies in the directory, loaded once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = AutoModelForImageTextToText.from_pretrained(directory / "base").eval()
        self.steered = self.load(directory / "export")
        self.steering = json.loads((directory / "steering.json").read_text())
        self.tensors = load_file(directory / "bundle.safetensors")

    @staticmethod
    def load(directory: Path, **kwargs: Any) -> Any:
        """As anybody does."""
        return AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True, **kwargs).eval()

    def prompt(self, name: str) -> dict[str, torch.Tensor]:
        """The prompt ``text`` or ``picture``; Qwen forgets the last picture's positions."""
        for model in (self.base, self.steered):
            if "qwen" in type(model).__name__.lower():
                model.model.rope_deltas = None
        batch = load_file(self.directory / f"{name}.safetensors")
        if transformers.__version__ < "5":
            batch.pop("mm_token_type_ids", None)
        return batch

    def oracle_logits(self, batch: Any) -> torch.Tensor:
        return oracle.logits(self.base, self.steering, self.tensors, batch)

    def oracle_reply(self, batch: Any, **kwargs: Any) -> torch.Tensor:
        return oracle.generate(self.base, self.steering, self.tensors, batch, **kwargs)

    def reply(self, model: Any, batch: Any, **kwargs: Any) -> torch.Tensor:
        tokens: torch.Tensor = model.generate(**batch, **kwargs)
        return tokens[:, batch["input_ids"].shape[1] :]


def without_this_package(_: Checkpoint) -> None:
    assert "mllmeraser" not in sys.modules


def every_weight_is_the_bases(c: Checkpoint) -> None:
    loaded = dict(c.steered.named_parameters())
    for name, tensor in c.base.named_parameters():
        assert torch.equal(loaded[name], tensor), name


def forward_equals_the_oracle(c: Checkpoint) -> None:
    for name in ("text", "picture"):
        batch = c.prompt(name)
        native, expected = c.steered(**batch).logits, c.oracle_logits(batch)
        assert torch.equal(native, expected), f"{name}: {float((native - expected).abs().max())}"
        assert not torch.equal(native, c.base(**batch).logits), f"{name}: not steered"


def off_equals_the_base(c: Checkpoint) -> None:
    for switch in ({"steering_enabled": False}, {"steering_strength": 0.0}):
        model = c.load(c.directory / "export", **switch)
        for name in ("text", "picture"):
            batch = c.prompt(name)
            assert torch.equal(model(**batch).logits, c.base(**batch).logits), f"{name} {switch}"


def reply_equals_the_oracle(c: Checkpoint) -> None:
    batch = c.prompt("text")
    expected = c.oracle_reply(batch, **GREEDY)
    assert torch.equal(c.reply(c.steered, batch, **GREEDY), expected), "dynamic cache"
    assert torch.equal(c.reply(c.steered, batch, use_cache=False, **GREEDY), expected), "no cache"
    static = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(c.reply(c.steered, batch, **static, **GREEDY), expected), "static cache"
    assert not torch.equal(c.reply(c.base, batch, **GREEDY), expected), "not steered"


def beams_equal_the_oracle(c: Checkpoint) -> None:
    batch = c.prompt("text")
    assert torch.equal(c.reply(c.steered, batch, **BEAMS), c.oracle_reply(batch, **BEAMS))


def picture_reply_is_steered(c: Checkpoint) -> None:
    said = [c.reply(model, c.prompt("picture"), **GREEDY) for model in (c.steered, c.base)]
    assert not torch.equal(*said)


def saved_and_loaded_again(c: Checkpoint) -> None:
    saved, batch = c.directory / f"saved-{transformers.__version__}", c.prompt("picture")
    c.steered.save_pretrained(saved)
    assert torch.equal(c.load(saved)(**batch).logits, c.steered(**batch).logits)
    raises(OSError, lambda: type(c.base).from_pretrained(saved))


def offloaded_to_disk_in_bf16(c: Checkpoint) -> None:
    leaves = {name for name, module in c.base.named_modules() if not list(module.children())}
    # LLaVA-NeXT has a parameter beside its modules.
    leaves |= {name for name, _ in c.base.named_parameters() if name.rpartition(".")[0] not in leaves}
    layers = f"{c.steered.decoder_path}.layers."
    devices = {name: "cpu" for name in leaves if not name.startswith(layers)}
    devices |= {f"{layers}{n}": "disk" if n % 2 else "cpu" for n in range(4)}
    folder, export = {"offload_folder": c.directory / f"offload-{transformers.__version__}"}, c.directory / "export"
    near = c.load(export, torch_dtype=torch.bfloat16)
    far = c.load(export, torch_dtype=torch.bfloat16, device_map=devices, **folder)
    assert any(p.is_meta for name, p in far.named_parameters() if ".steering." in name), "not offloaded"
    batch = c.prompt("text")
    assert torch.equal(far(**batch).logits, near(**batch).logits)


def fails_closed(c: Checkpoint) -> None:
    directory = c.directory / "export"
    raises(ValueError, lambda: AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=False))
    raises(OSError, lambda: type(c.base).from_pretrained(directory))
    raises(OSError, lambda: type(c.base).from_pretrained(directory, variant="mllmeraser"))
    raises(ValueError, lambda: PreTrainedModel.save_pretrained(c.steered, c.directory / "unbound"))
    raises(ValueError, lambda: c.steered.push_to_hub("org/name"))
    damaged = c.directory / f"damaged-{transformers.__version__}"
    shutil.copytree(directory, damaged)
    file = damaged / STEERING_FILE
    for followed in ("adapter_config.json", "custom_generate/generate.py"):
        (damaged / followed).parent.mkdir(exist_ok=True)
        (damaged / followed).write_text(json.dumps({"base_model_name_or_path": str(c.directory / "base")}))
        raises(ValueError, lambda: type(c.steered).from_pretrained(damaged))
        (damaged / followed).unlink()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    raises(ValueError, lambda: c.load(damaged))
    file.unlink()
    raises(ValueError, lambda: c.load(damaged))
    file.write_bytes(content)
    config = damaged / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "steering_strength": 0.0}))
    raises(ValueError, lambda: c.load(damaged, steering_strength=1.0))
    config.write_text(json.dumps({**settings, "steering_enabled": False}))  # a switch
    assert torch.equal(c.load(damaged)(**c.prompt("text")).logits, c.base(**c.prompt("text")).logits)
    index = next(damaged.glob("*.index.json"))
    weight_map = json.loads(index.read_text())
    lost = next(name for name in weight_map["weight_map"] if ".layers.2." in name and name.endswith("up_proj.weight"))
    del weight_map["weight_map"][lost]
    index.write_text(json.dumps(weight_map))
    # As whoever takes a tensor out on purpose: only the loader's own list of the weights can tell.
    others = {name: (damaged / name).read_bytes() for name in settings["steering"]["seal"] if name != config.name}
    config.write_text(json.dumps(sys.modules[type(c.steered).__module__].with_seal(settings, others)))
    shard = next(path for path in damaged.glob("*.safetensors") if path.name != STEERING_FILE)
    tensors = load_file(shard)
    del tensors[lost]
    shard.unlink()  # a link to the base's
    save(tensors, shard)
    raises(ValueError, lambda: c.load(damaged))


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})


def thin_equals_the_whole(c: Checkpoint) -> None:
    directory, cache = c.directory / "thin", c.directory / "cache"
    model = c.load(directory, cache_dir=cache)
    for name in ("text", "picture"):
        batch = c.prompt(name)
        assert torch.equal(model(**batch).logits, c.steered(**batch).logits), name
    assert torch.equal(c.reply(model, c.prompt("text"), **GREEDY), c.reply(c.steered, c.prompt("text"), **GREEDY))
    blob = max(cache.rglob("blobs/*"), key=lambda path: path.stat().st_size)
    content = blob.read_bytes()
    blob.write_bytes(content[:-1])
    raises(ValueError, lambda: c.load(directory, cache_dir=cache))
    blob.write_bytes(content)
    raises(ValueError, lambda: c.load(directory, cache_dir=c.directory / "no-cache"))
    raises(OSError, lambda: type(c.base).from_pretrained(directory))


def every_token_by_its_own_gate(c: Checkpoint) -> None:
    directory, batch = c.directory / "token", c.prompt("text")
    model = c.load(directory)
    assert not torch.equal(model(**batch).logits, c.base(**batch).logits), "not steered"
    reply = c.reply(model, batch, **GREEDY)
    assert torch.equal(c.reply(model, batch, use_cache=False, **GREEDY), reply), "no cache"
    _, native = AutoModel.from_pretrained(c.directory / "base", output_loading_info=True)
    if native["missing_keys"]:  # 5.8 itself cannot load a published LLaVA below the head; ours must not either
        return raises(ValueError, lambda: AutoModel.from_pretrained(directory, trust_remote_code=True))
    below = AutoModel.from_pretrained(directory, trust_remote_code=True).eval()
    for on in (True, False):
        model.config.steering_enabled = below.config.steering_enabled = on
        hidden = model.model(**batch).last_hidden_state
        assert torch.equal(below(**batch).last_hidden_state, hidden), "below the head"
    assert torch.equal(hidden, c.base.model(**batch).last_hidden_state), "off"


def a_conversation_is_sealed(c: Checkpoint) -> None:
    model = c.load(c.directory / "sealed")
    part = json.loads((c.directory / "sealed.json").read_text()), load_file(c.directory / "sealed.safetensors")
    for name in ("text", "picture"):
        batch = c.prompt(name)
        native, plain = model(**batch).logits, c.base(**batch).logits
        torch.testing.assert_close(native, oracle.logits(c.base, *part, batch), rtol=1e-4, atol=1e-4)
        assert torch.equal(native[1], plain[1]), f"{name}: another row is not the base's"
        assert not torch.equal(native[0], plain[0]), f"{name}: not sealed"
        assert torch.equal(native[0], native[0, :1].expand_as(native[0])), f"{name}: something of the prompt is left"
    batch = c.prompt("text")
    expected = oracle.generate(c.base, *part, batch, **GREEDY)
    for way in ({}, {"use_cache": False}, {"cache_implementation": "static", "disable_compile": True}):
        assert torch.equal(c.reply(model, batch, **way, **GREEDY), expected), f"reply {way}"
    beams = [c.reply(by, batch, **BEAMS) for by in (model, c.base)]
    assert torch.equal(beams[0][2:], beams[1][2:]), "beams of another row are not the base's"
    assert not torch.equal(beams[0][:2], beams[1][:2]), "beams: not sealed"
    embeds = model.get_input_embeddings()(batch["input_ids"])
    body = model.model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).last_hidden_state
    assert torch.equal(body[0], body[0, :1].expand_as(body[0])), "the body by itself: not sealed"
    model.config.steering_enabled = False
    assert torch.equal(model(**batch).logits, c.base(**batch).logits), "off"


def processor_gives_the_bases_inputs(c: Checkpoint) -> None:
    if not (c.directory / "base" / "tokenizer.json").exists():
        return  # only some families are given one
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "w30 w41"}]}]
    made = []
    for name in ("base", "export"):
        # Without trust the tokenizer's loader, which looks at the configuration, would ask at the terminal.
        processor = AutoProcessor.from_pretrained(c.directory / name, trust_remote_code=name == "export")
        text = processor.apply_chat_template(turn, add_generation_prompt=True)
        shown = Image.radial_gradient("L").resize((16, 16)).convert("RGB")
        made.append(dict(processor(text=[text], images=[shown], return_tensors="pt").items()))
    assert made[0].keys() == made[1].keys() >= {"input_ids", "attention_mask", "pixel_values"}
    for name, value in made[0].items():
        assert torch.equal(value, made[1][name]), name


def raises(kind: type[Exception], call: Callable[[], object]) -> None:
    """``call`` must raise this, and so give no model."""
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__} was raised")


CHECKS = (
    without_this_package,
    every_weight_is_the_bases,
    forward_equals_the_oracle,
    off_equals_the_base,
    reply_equals_the_oracle,
    beams_equal_the_oracle,
    picture_reply_is_steered,
    saved_and_loaded_again,
    offloaded_to_disk_in_bf16,
    fails_closed,
    thin_equals_the_whole,
    every_token_by_its_own_gate,
    a_conversation_is_sealed,
    processor_gives_the_bases_inputs,
)


def main() -> None:
    """Run every check, whatever the others found."""
    checkpoint = Checkpoint(Path(sys.argv[1]))
    results = []
    for check in CHECKS:
        name, problem = check.__name__.replace("_", " "), None
        try:
            with torch.no_grad():
                check(checkpoint)
        except Exception as error:  # a finding to report, of whatever kind
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        results.append({"check": name, "ok": problem is None, "detail": problem or transformers.__version__})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
