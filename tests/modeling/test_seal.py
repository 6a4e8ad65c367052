"""P5. The seal in ``config.json``: what was changed since it was written does not load; the switches may be edited."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from transformers import PreTrainedModel

from mllmeraser.modeling_patches import modeling_mllmeraser as modeling
from mllmeraser.modeling_patches.modeling_mllmeraser import CODE, CONFIG, INDEX, STEERING_FILE, SteeringError

SEALED = {CONFIG, INDEX, *CODE}


@pytest.fixture
def part(base_model: PreTrainedModel, family: tiny.Family) -> Any:
    """Two requests."""
    batch = tiny.prompt(family, 9, 7)
    return tiny.merged(tiny.steering(base_model, batch, steps=2), tiny.steering(base_model, batch, seed=4))


@pytest.fixture
def exported(base_model: PreTrainedModel, part: Any, tmp_path: Path) -> Path:
    """A sealed directory."""
    return tiny.export(base_model, part, tmp_path / "exported")


def load(directory: Path, **kwargs: Any) -> Any:
    model_type = json.loads((directory / CONFIG).read_text())["model_type"]
    return modeling.steered_class(model_type).from_pretrained(directory, **kwargs)


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the parsed ``config.json``, and nothing else."""
    config = json.loads((directory / CONFIG).read_text())
    change(config)
    (directory / CONFIG).write_text(json.dumps(config))


# ------------------------------------------------------------------------------------------------------ what is refused


def _request(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["steering"]["requests"][0].update({key: value})


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "strength of all": lambda c: c.update(steering_strength=0.0),
    "strength of one": _request("strength", 0.0),
    "threshold": lambda c: c["steering"]["requests"][0]["gate"].update(threshold=8.6),
    "a request less": lambda c: c["steering"]["requests"].pop(),
    "a number of the base": lambda c: c["text_config"].update(rms_norm_eps=0.5),
    "a key more": lambda c: c.update(rope_scaling={"type": "linear", "factor": 2.0}),
    "a key less": lambda c: c.pop("architectures"),
    "a switch that is no boolean": lambda c: c.update(steering_enabled=0),
    "a switch of a request that is none": _request("enabled", None),
    "the sha256 of the steering": lambda c: c["steering"].update(sha256="0" * 64),
    "the seal of a file": lambda c: c["steering"]["seal"].update({INDEX: "0" * 64}),
    "a file less in the seal": lambda c: c["steering"]["seal"].pop(CODE[1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_configuration_is_refused_in_one_line_that_mends_it(exported: Path, change: str) -> None:
    edit(exported, CHANGES[change])
    with pytest.raises(SteeringError, match=r"config\.json: changed .*export again; .*steering_strength=") as caught:
        load(exported)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(SEALED - {CONFIG}))
def test_a_changed_or_missing_file_is_named(exported: Path, name: str) -> None:
    (exported / name).write_bytes((exported / name).read_bytes() + b"\n")
    with pytest.raises(SteeringError, match=f"^{name}: changed since .*fetch it again, or export again$"):
        load(exported)
    (exported / name).unlink()
    with pytest.raises(SteeringError, match=f"^{name}: not found"):
        load(exported)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"steering": 1}', b'{"steering": {"seal": 3}}', b"\xff", b"[" * 10**5],
)
def test_without_a_seal_nothing_loads(exported: Path, content: bytes) -> None:
    edit(exported, lambda config: config["steering"].pop("seal"))
    with pytest.raises(SteeringError, match=r"config\.json: damaged, or of an old export: it holds no seal"):
        load(exported)
    with pytest.raises(SteeringError, match="it holds no seal"):
        modeling.check_seal(content, lambda name: b"")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b"])
def test_the_seal_cannot_point_outside(exported: Path, name: str) -> None:
    (exported.parent / "x").write_bytes(b"")
    config = json.loads((exported / CONFIG).read_text())
    content = json.dumps(modeling.with_seal(config, {name: b""})).encode()
    with pytest.raises(SteeringError, match="not a file beside it"):
        modeling.check_seal(content, lambda name: b"")


def test_nothing_is_built_before_the_seal_is_compared(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*_: object, **__: object) -> None:
        raise AssertionError("built")

    edit(exported, lambda config: config.update(steering_strength=0.0))
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", built)
    cls = modeling.steered_class(json.loads((exported / CONFIG).read_text())["model_type"])
    monkeypatch.setattr(cls.config_class, "from_pretrained", built)
    with pytest.raises(SteeringError, match="changed"):
        cls.from_pretrained(exported)


def test_what_is_given_does_not_hide_what_lies_there(exported: Path) -> None:
    config = load(exported).config
    edit(exported, lambda config: config.update(steering_strength=0.0))
    options: list[dict[str, Any]] = [{"config": config}, {"steering_strength": 1.0}, {"steering_enabled": False}]
    for given in options:
        with pytest.raises(SteeringError, match=r"config\.json: changed"):
            load(exported, **given)


# ----------------------------------------------------------------------------------------------------- what may change


@torch.no_grad()
def test_the_switches_may_be_edited_and_everything_may_be_given(
    base_model: PreTrainedModel, family: tiny.Family, part: Any, exported: Path
) -> None:
    batch = tiny.prompt(family, 9, 7)
    on, off = tiny.steered(base_model, part)(**batch).logits, base_model(**batch).logits
    model = tiny.steered(base_model, part)
    model.config.steering["requests"][0]["enabled"] = False
    second = model(**batch).logits
    model.config.steering_strength = 0.5
    weak = model(**batch).logits
    assert len({float(logits.double().sum()) for logits in (on, off, second, weak)}) == 4

    assert torch.equal(load(exported, steering_enabled=False)(**batch).logits, off)
    steering = json.loads((exported / CONFIG).read_text())["steering"]
    steering["requests"][0]["enabled"] = False
    given = load(exported, steering=steering, steering_strength=0.5)
    assert torch.equal(given(**batch).logits, weak)

    edit(exported, _request("enabled", False))
    assert torch.equal(load(exported)(**batch).logits, second)
    edit(exported, lambda config: config.update(steering_enabled=False))
    assert torch.equal(load(exported)(**batch).logits, off)
    edit(exported, lambda config: config.pop("steering_enabled"))  # then it is on
    assert torch.equal(load(exported)(**batch).logits, second)
    assert torch.equal(load(exported, steering_enabled=False)(**batch).logits, off)


def test_another_layout_of_the_same_configuration_is_the_same(exported: Path) -> None:
    config = json.loads((exported / CONFIG).read_text())
    (exported / CONFIG).write_text(json.dumps(dict(reversed(config.items())), indent=7))
    load(exported)


# ------------------------------------------------------------------------------------------------------ save_pretrained


@pytest.mark.parametrize("max_shard_size", ["1GB", "60KB"])
@torch.no_grad()
def test_what_is_saved_is_sealed_as_it_was_set(
    base_model: PreTrainedModel, family: tiny.Family, part: Any, exported: Path, tmp_path: Path, max_shard_size: str
) -> None:
    batch, saved = tiny.prompt(family, 9, 7), tmp_path / "saved"
    model = load(exported)
    model.config.steering_strength = 0.5
    model.config.steering["requests"][0]["enabled"] = False
    model.save_pretrained(saved, max_shard_size=max_shard_size)
    seal = json.loads((saved / CONFIG).read_text())["steering"]["seal"]
    assert seal.keys() == SEALED | {"generation_config.json"}
    again = load(saved)
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert not list(saved.glob("*.tmp"))
    again.save_pretrained(saved, max_shard_size=max_shard_size)  # over itself
    assert torch.equal(load(saved)(**batch).logits, model(**batch).logits)
    edit(saved, lambda config: config.update(steering_strength=0.0))
    with pytest.raises(SteeringError, match="changed"):
        load(saved)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft uses the older name
@torch.no_grad()
def test_a_lora_that_was_merged_is_saved_and_loads(exported: Path, family: tiny.Family, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = load(exported)
    before = model(**tiny.prompt(family, 9, 7)).logits
    adapted = get_peft_model(model, LoraConfig(target_modules=r".*language_model.*\.q_proj", init_lora_weights=False))
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "saved")
    logits = merged(**tiny.prompt(family, 9, 7)).logits
    assert not torch.equal(logits, before)
    assert torch.equal(load(tmp_path / "saved")(**tiny.prompt(family, 9, 7)).logits, logits)


def test_nothing_loads_from_a_save_that_was_cut_short(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    model = load(exported)
    monkeypatch.setattr(modeling, "with_seal", killed)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / STEERING_FILE).exists()
    with pytest.raises(SteeringError, match="no seal"):
        load(tmp_path / "saved")


def test_saving_over_an_export_takes_its_manifest_and_signature_away(exported: Path) -> None:
    model = load(exported)
    claims = [exported / name for name in ("mllmeraser.json", "model.sig")]
    for claim in claims:
        claim.write_text("{}")
    model.save_pretrained(exported)
    assert not [claim for claim in claims if claim.exists()]
    load(exported)
