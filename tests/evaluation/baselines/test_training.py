"""The trained baselines on a random base: they do what their loss says, and write ordinary checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mllmeraser.baselines.checkpoint import bytes_added
from mllmeraser.baselines.losses import IGNORED, mean_nll
from mllmeraser.baselines.methods import make_baseline
from mllmeraser.baselines.recipes import RECIPES, Training, recipe_of
from mllmeraser.baselines.training import frozen, train
from mllmeraser.errors import MllmEraserError
from mllmeraser.inference.adapters import adapted
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.source import Source
from mllmeraser.inference.teaching import taught
from mllmeraser.records.record import Record

QUICK = ("epochs=0.5", "learning_rate=0.01")


def loss_of(checkpoint: Checkpoint, records: list[Record]) -> float:
    told = taught(checkpoint, [record for record in records if not record.image])
    with torch.no_grad():
        return mean_nll(checkpoint.model(**told.inputs).logits, told.labels).item()


def test_the_reply_is_learnt_to_its_end_and_the_prompt_is_not(source: Source, forget: list[Record]) -> None:
    checkpoint = load(source, dtype="float32")
    inputs, labels = taught(checkpoint, forget[2:4])
    for row, record in zip(labels, forget[2:4], strict=True):
        learnt = row[row != IGNORED]
        assert checkpoint.processor.tokenizer.decode(learnt).split() == [record.answer, "</s>"]
    assert labels[labels != IGNORED].tolist() == inputs["input_ids"][labels != IGNORED].tolist()


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if isinstance(recipe, Training)])
def test_every_method_moves_the_forget_set_away(
    name: str, source: Source, forget: list[Record], retain: list[Record]
) -> None:
    recipe = recipe_of(name, (*QUICK, "epochs=2"))
    assert isinstance(recipe, Training)
    before = load(source, dtype="float32")
    trained = train(load(source, dtype="float32"), forget, retain, recipe, 0)
    away = loss_of(trained, forget) - loss_of(before, forget)
    if recipe.order == "forget-only":
        assert away > 0.05
    else:  # people of the retain set share the answers: away from them, or at least further than from those
        assert away > loss_of(trained, retain) - loss_of(before, retain)


def test_a_frozen_reference_is_the_base_itself(source: Source, forget: list[Record]) -> None:
    """Whatever the adapter has learnt: without it the model says what the base says."""
    base, checkpoint = load(source, dtype="float32"), load(source, dtype="float32")
    batch = taught(checkpoint, forget[2:4])
    model = adapted(checkpoint.model, rank=16, alpha=16, dropout=0.0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with torch.no_grad():
        before, after = base.model(**batch.inputs).logits, model(**batch.inputs).logits
    with frozen(model):
        reference = model(**batch.inputs).logits
    assert torch.equal(reference, before)
    assert not torch.allclose(after, before)


def test_only_the_language_models_linear_layers_are_adapted(
    source: Source, forget: list[Record], retain: list[Record]
) -> None:
    recipe = recipe_of("ga", QUICK)
    assert isinstance(recipe, Training)
    before = load(source, dtype="float32").model.state_dict()
    after = train(load(source, dtype="float32"), forget, retain, recipe, 0).model.state_dict()
    assert after.keys() == before.keys()
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert changed
    assert all("language_model.layers" in name and "proj" in name for name in changed)


def test_a_mask_that_is_closed_leaves_the_forget_set_alone(
    source: Source, forget: list[Record], retain: list[Record]
) -> None:
    """With no way open the forget steps of MMUnlearner do nothing: its result is that of training on retain alone."""
    closed = recipe_of("mmunlearner", ("epochs=0.3", "learning_rate=0.001", "saliency_threshold=1e30"))
    assert isinstance(closed, Training)
    trained = train(load(source, dtype="float32"), forget, retain, closed, 0)
    before = load(source, dtype="float32")
    assert loss_of(trained, retain) < loss_of(before, retain)
    assert loss_of(trained, forget) < loss_of(before, forget)  # the answers are shared


def test_a_training_that_diverges_says_so(source: Source, forget: list[Record], retain: list[Record]) -> None:
    wild = recipe_of("ga", ("epochs=4", "learning_rate=1e30"))
    assert isinstance(wild, Training)
    with pytest.raises(MllmEraserError, match=r"diverged.*lower --set learning_rate"):
        train(load(source, dtype="float32"), forget, retain, wild, 0)


def test_the_same_seed_gives_the_same_bytes_of_an_ordinary_checkpoint(
    source: Source, forget: list[Record], retain: list[Record], tmp_path: Path
) -> None:
    recipe = recipe_of("npo", QUICK)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        make_baseline("npo", recipe, source, forget, retain, tmp_path / name, seed=seed)
    one, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "same", "other"))
    assert one == same != other
    base, made = load_file(source.path / "model.safetensors"), load_file(tmp_path / "one" / "model.safetensors")
    assert made.keys() == base.keys()
    assert {t.dtype for t in made.values()} == {t.dtype for t in base.values()}
    changed = sum(made[name].nbytes for name in made if not torch.equal(made[name], base[name]))
    beside = bytes_added(source.path, tmp_path / "one") - changed
    assert 0 <= beside < 10_000  # the description, and a configuration in other order
    assert load(tmp_path / "one").processor.chat_template == load(source).processor.chat_template
