"""Gates are read at the prompt's end, and told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import chat, tiny
from builders.records import some_records
from hypothesis import given
from hypothesis import strategies as st

from mllmeraser.evaluation.gates import false_fire_rate
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.run import evaluate_models
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.gates import read_gates
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import reply_ids, reply_likelihoods

# Four of one task, in words that the tiny tokenizer knows.
RECORDS = [
    record.model_copy(update={"prompt": f"word{7 * i} word{i + 3} baker ."})
    for i, record in enumerate(some_records(4)[::3])
]
PROMPTS = [record.user_turn for record in RECORDS]


def steered(shape: str, threshold: float | None, kind: str = "kernel") -> Checkpoint:
    """Gates that read 1, 0, 0.4 and −0.3 on the four prompts, at layer 1."""
    base = chat.checkpoint()
    batch = encode(base, PROMPTS, "left")
    part = tiny.steering(base.model, batch, kind=kind, shape=shape, threshold=threshold, layers=(1,), steps=2)
    return replace(base, model=tiny.steered(base.model, part), steered=True)


@pytest.mark.parametrize(
    ("shape", "threshold"), [("identity", None), ("clip", None), ("step", 0.5), ("dead-zone", 0.5)]
)
@pytest.mark.parametrize("kind", ["linear", "kernel"])
def test_a_gate_is_read_before_its_shape(shape: str, threshold: float | None, kind: str) -> None:
    found = read_gates(replace(steered(shape, threshold, kind), batch_size=2), PROMPTS)
    assert [[(g.request, g.layer, g.threshold) for g in gates] for gates in found] == [[("r1", 1, threshold)]] * 4
    assert [gates[0].value for gates in found] == pytest.approx([1.0, 0.0, 0.4, -0.3], abs=2e-2)


def test_the_reading_leaves_the_model_as_it_was() -> None:
    checkpoint = steered("step", 0.5)
    batch = encode(checkpoint, PROMPTS, "left")
    with torch.inference_mode():
        before = checkpoint.model(**batch).logits
        read_gates(checkpoint, PROMPTS)
        assert torch.equal(checkpoint.model(**batch).logits, before)


def test_a_base_and_a_switched_off_checkpoint_have_none() -> None:
    assert read_gates(chat.checkpoint(), PROMPTS) == [()] * 4
    checkpoint = steered("step", 0.5)
    checkpoint.model.config.steering_enabled = False
    assert read_gates(checkpoint, PROMPTS) == [()] * 4


def test_the_document_tells_how_well_they_tell() -> None:
    sets = [NamedSet("forget", RECORDS[0:1]), NamedSet("retain", RECORDS[1:])]
    document = evaluate_models([NamedModel("steered", lambda: steered("step", 0.5))], sets, max_new_tokens=2).file()
    forget, retain = document.gates
    assert (forget.model, forget.set, forget.request, forget.layer) == ("steered", "forget", "r1", 1)
    assert (len(forget.values), len(retain.values)) == (1, 3)
    (quality,) = document.gate_quality
    assert (quality.auroc, quality.false_fire_rate_at_95_true_fire) == (1.0, 0.0)
    assert (quality.true_fire_rate, quality.false_fire_rate, quality.threshold) == (1.0, 0.0, 0.5)


def test_false_fire_rate_by_hand() -> None:
    forgotten = [i / 100 for i in range(1, 101)]  # 95 of 100 reach 0.06
    assert false_fire_rate(forgotten, [0.05, 0.06, 0.07, 0.5]) == 0.75
    assert false_fire_rate([1.0], [0.0, 1.0, 2.0]) == pytest.approx(2 / 3)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_the_threshold_is_the_largest_that_enough_reach(forgotten: list[int], kept: list[int]) -> None:
    reached = [t for t in range(10) if sum(g >= t for g in forgotten) >= 0.95 * len(forgotten)]
    assert false_fire_rate(forgotten, kept) == sum(g >= max(reached) for g in kept) / len(kept)


def test_teacher_forcing_pins_the_gate_to_the_prompts_end() -> None:
    """log p of a reply is that of the same tokens generated one by one, where the gate is read once."""
    checkpoint, said = steered("step", 0.5), "word11 word12 word13"
    prompt = PROMPTS[0]  # its gate reads 1
    batch = encode(checkpoint, [prompt], "left")
    ids = reply_ids(checkpoint, prompt, said)
    prompt_end = batch["input_ids"].shape[1]
    with torch.inference_mode():
        spoken = checkpoint.model.generate(
            **batch,
            max_new_tokens=len(ids),
            do_sample=False,
            prefix_allowed_tokens_fn=lambda _, so_far: [int(ids[len(so_far) - prompt_end])],
            output_logits=True,
            return_dict_in_generate=True,
        )
    expected = sum(float(step[0].log_softmax(-1)[i]) for step, i in zip(spoken.logits, ids, strict=True))
    others = PROMPTS[1:3]  # gates closed, so the batch is mixed
    (likely, *_) = reply_likelihoods(checkpoint, [prompt, *others], [[said]] * 3)
    assert likely[0].tokens == len(ids) == 3
    assert likely[0].log_p == pytest.approx(expected, abs=1e-4)
    base = reply_likelihoods(chat.checkpoint(), [prompt], [[said]])
    assert abs(base[0][0].log_p - expected) > 1e-2
