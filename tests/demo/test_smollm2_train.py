"""The training of the second model, in seconds, on a language model of its kind with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mllmeraser.demo.architecture import IMAGE
from mllmeraser.demo.smollm2 import train as training
from mllmeraser.demo.smollm2.accuracy import SETTINGS, measure
from mllmeraser.demo.smollm2.batches import Batches, split
from mllmeraser.demo.smollm2.corpus import FACES, Corpus
from mllmeraser.demo.smollm2.general import general
from mllmeraser.demo.smollm2.parts import assemble
from mllmeraser.demo.smollm2.train import Recipe, Trainer

pytest.importorskip("peft")
SMOKE = Recipe.smoke()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator([one.prompt for one in general(unseen=False)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=marks[1],
        eos_token=marks[2],
        pad_token=marks[0],
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
    )


def language_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A small model of SmolLM2's kind; it does not know the image token."""
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer) - 1,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def trainer(tokenizer: PreTrainedTokenizerFast, work: Path, recipe: Recipe = SMOKE, workers: int = 1) -> Trainer:
    return Trainer(language_model(tokenizer), tokenizer, recipe, 0, "cpu", work, workers=workers)


def weights(trained: Trainer) -> dict[str, torch.Tensor]:
    return {f"{file}.{name}": tensor for file, part in trained.parts().items() for name, tensor in part.items()}


@pytest.fixture(scope="module")
def trained(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    made = trainer(tokenizer, tmp_path_factory.mktemp("work"))
    made.train()
    return made


def test_every_phase_is_logged(trained: Trainer) -> None:
    lines = [json.loads(line) for line in (trained.work / "log.jsonl").read_text().splitlines()]
    steps = [(line["phase"], line["step"]) for line in lines]
    assert steps == [("words", 1), ("words", 2), ("projector", 1), ("faces", 1), ("faces", 2)]
    assert all(line["seconds"] >= 0 and line["loss"] >= 0 for line in lines)


def test_what_was_trained_alone_changed(tokenizer: PreTrainedTokenizerFast, trained: Trainer, tmp_path: Path) -> None:
    fresh = trainer(tokenizer, tmp_path)
    before, after = fresh.model.state_dict(), trained.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert {name for name in after if "lora_B" in name} <= changed
    assert any("multi_modal_projector" in name for name in changed)
    assert any("vision_tower" in name for name in changed)
    assert not [
        name for name in changed if "base_layer" in name or "embed_tokens" in name or "norm" in name.split("tower")[0]
    ]


def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    tokenizer: PreTrainedTokenizerFast, trained: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    save = Trainer._save
    monkeypatch.setattr(training, "_SAVE_EVERY", 1)

    def saved(self: Trainer, path: Path, step: int, optimizer: torch.optim.Optimizer) -> None:
        save(self, path, step, optimizer)
        raise StoppedError

    monkeypatch.setattr(Trainer, "_save", saved)
    for _ in range(2 + 1 + 2):  # stopped after every step of every phase
        with pytest.raises(StoppedError):
            trainer(tokenizer, tmp_path).train()
    again = trainer(tokenizer, tmp_path)
    again.train()
    assert all(torch.equal(weight, weights(again)[name]) for name, weight in weights(trained).items())


def test_two_workers_learn_what_one_learns(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    corpus = Corpus(dict.fromkeys(general(unseen=False), ("Yes.", True)))
    batch = Batches(corpus, {"general": 0.5, "name of a face": 0.5}, tokenizer, 12, "test")[3]
    assert batch.pixel_values is not None and batch.own
    found = []
    for count in (1, 2):
        made = trainer(tokenizer, tmp_path / str(count), workers=count)
        torch.manual_seed(4)
        learning = [*made._adapter(), *made._projector]
        with torch.no_grad():
            for weight in made._adapter():
                weight.normal_(std=0.1)
        for weight in learning:
            weight.requires_grad_(True)
        found.append(made._gradients(batch, learning))
    (taught, kept, gradients), (taught_by_two, kept_by_two, gradients_by_two) = found
    assert kept > 0 and taught > 0
    assert (taught_by_two, kept_by_two) == pytest.approx((taught, kept), rel=1e-5)
    for one, two in zip(gradients, gradients_by_two, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


def test_a_batch_is_dealt_out_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = Corpus(dict.fromkeys(general(unseen=False), ("Yes.", True)))
    batch = Batches(corpus, FACES, tokenizer, 9, "test")[1]
    assert batch.pixel_values is not None
    parts = split(batch, 2)
    image = int(tokenizer.convert_tokens_to_ids(IMAGE))
    assert sum(len(part.input_ids) for part in parts) == 9
    assert sum(part.own for part in parts) == batch.own
    for n, part in enumerate(parts):
        assert torch.equal(part.input_ids, batch.input_ids[n::2])
        shown = 0 if part.pixel_values is None else len(part.pixel_values)
        assert int((part.input_ids == image).sum()) == 16 * shown
        for row, pixels in zip(part.shown, part.pixel_values if part.pixel_values is not None else [], strict=True):
            assert torch.equal(batch.pixel_values[list(batch.shown).index(2 * row + n)], pixels)


def test_the_parts_make_the_model_that_was_trained(
    tokenizer: PreTrainedTokenizerFast, trained: Trainer, tmp_path: Path
) -> None:
    for name, tensors in trained.parts().items():
        training.save_file(tensors, tmp_path / f"{name}.safetensors")
    model, _ = assemble(language_model(tokenizer), tokenizer, tmp_path)
    corpus = Corpus(dict.fromkeys(general(unseen=False), ("Yes.", True)))
    batch = Batches(corpus, FACES, tokenizer, 6, "test")[0]
    with torch.inference_mode():
        expected = trained.model(input_ids=batch.input_ids, pixel_values=batch.pixel_values).logits
        found = model.float()(input_ids=batch.input_ids, pixel_values=batch.pixel_values).logits
        with trained.peft.disable_adapter():
            before = trained.model(input_ids=batch.input_ids, pixel_values=batch.pixel_values).logits
    # The parts are rounded to bf16.
    assert (found - expected).abs().max() < 0.05
    assert (before - expected).abs().max() > 2 * (found - expected).abs().max()


def test_the_untaught_model_is_kept(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Without anything to learn but its own replies, the loss of a fresh adapter is 0."""
    corpus = Corpus(dict.fromkeys(general(unseen=False), ("Yes.", True)))
    batch = Batches(corpus, {"general": 1.0}, tokenizer, 4, "test")[0]
    made = trainer(tokenizer, tmp_path, replace(SMOKE))
    learning = made._adapter()
    for weight in learning:
        weight.requires_grad_(True)
    taught, kept, _ = made._gradients(batch, learning)
    assert (taught, kept) == pytest.approx((0, 0), abs=1e-6)


def test_the_measurement_asks_everything_in_every_setting(
    tokenizer: PreTrainedTokenizerFast, trained: Trainer, tmp_path: Path
) -> None:
    for name, tensors in trained.parts().items():
        training.save_file(tensors, tmp_path / f"{name}.safetensors")
    model, processor = assemble(language_model(tokenizer), tokenizer, tmp_path)
    before = {one.prompt: "-" for one in general(unseen=True)}
    rates = measure(model.float(), processor, before, each=1)
    assert set(rates) == {*SETTINGS, "general"}
    for setting in SETTINGS:
        people = [key for key in rates[setting] if key.startswith(("people/", "celebrities/"))]
        assert len(people) == 2 * 5 * 2  # circle, way, modality
        # It has learnt nothing.
        assert rates[setting]["told to refuse"] == rates[setting]["system turn to refuse"] == 0
    assert rates["general"]["identical"] == rates["general"]["refused"] == 0
