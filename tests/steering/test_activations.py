"""States read in batches, in a pass that stops early, are those of a plain pass over each prompt alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import plain_states, talker

from mllmeraser.errors import InputError
from mllmeraser.inference.activations import decoder_layers, last_prompt_states, mean_reply_states
from mllmeraser.inference.loading import Checkpoint, load

REPLIES = [torch.tensor(ids) for ids in ([5, 6, 7, 8], [9], [10, 11], [12, 13, 14], [15, 16, 17, 18, 19], [20])]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # fp32: another batch shape sums in another order


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(talker.make_base(tmp_path_factory.mktemp("base")))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_last_prompt_states_are_those_of_each_prompt_alone(checkpoint: Checkpoint, batch_size: int) -> None:
    prompts = talker.prompts()
    states = last_prompt_states(replace(checkpoint, batch_size=batch_size), prompts, [0, 2])
    assert set(states) == {0, 2}
    for row, prompt in enumerate(prompts):
        alone, length = plain_states.block_states(checkpoint, prompt)
        for layer in (0, 2):
            torch.testing.assert_close(states[layer][row], alone[layer][length - 1], **CLOSE)


def test_the_last_block_is_read_before_the_final_norm(checkpoint: Checkpoint) -> None:
    prompts = talker.prompts()
    last = len(decoder_layers(checkpoint)) - 1
    states = last_prompt_states(checkpoint, prompts, [last])[last]
    for row, prompt in enumerate(prompts):
        alone, length = plain_states.block_states(checkpoint, prompt)
        normed = checkpoint.model.get_decoder().norm(states[row]).detach()
        torch.testing.assert_close(normed, alone[last][length - 1], **CLOSE)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_means_along_replies_are_those_of_each_pair_alone(checkpoint: Checkpoint, batch_size: int) -> None:
    prompts, steps = talker.prompts(), 4
    means, counts = mean_reply_states(replace(checkpoint, batch_size=batch_size), prompts, REPLIES, [0, 2], steps)
    assert counts.tolist() == [6, 4, 3, 2]  # how many of the replies have a k-th token
    for layer in (0, 2):
        for k in range(steps):
            expected = plain_states.mean_along_replies(checkpoint, prompts, REPLIES, layer, k)
            torch.testing.assert_close(means[layer][k], expected, **CLOSE)


def test_where_no_reply_reaches_the_mean_is_zero_and_counts_nobody(checkpoint: Checkpoint) -> None:
    means, counts = mean_reply_states(checkpoint, talker.prompts()[:2], REPLIES[1:3], [1], 4)
    assert counts.tolist() == [2, 1, 0, 0]
    assert means[1][2:].count_nonzero() == 0


def test_the_pass_stops_after_the_last_block_that_is_wanted(checkpoint: Checkpoint) -> None:
    ran = []
    handles = [
        layer.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, layer in enumerate(decoder_layers(checkpoint))
    ]
    try:
        last_prompt_states(checkpoint, talker.prompts()[:1], [0])
        mean_reply_states(checkpoint, talker.prompts()[:1], REPLIES[:1], [0, 1], 2)
    finally:
        for handle in handles:
            handle.remove()
    # The layer that is read last ends the pass inside its own hook or after it; none behind it runs.
    assert max(ran) <= 1
    assert ran.count(0) == 2


@pytest.mark.parametrize("stage", ["prompt", "reply"])
def test_a_state_that_is_not_finite_is_an_error_naming_the_record(tmp_path: Path, stage: str) -> None:
    checkpoint = load(talker.make_base(tmp_path / "base"))
    prompts = [prompt for prompt in talker.prompts() if prompt.image is None]
    broken = checkpoint.processor.tokenizer.convert_tokens_to_ids("Graz")  # a word of the second prompt only
    with torch.no_grad():
        checkpoint.model.get_input_embeddings().weight[broken] = float("nan")
    if stage == "prompt":
        wrong = r"the state of record 2 is not finite \(the prompt 'tell me please the job .* Graz'\)"
        with pytest.raises(InputError, match=rf"^layer 1: {wrong}; try --dtype float32$"):
            last_prompt_states(checkpoint, prompts, [1])
    else:
        wrong = r"a state along the reply to the prompt 'tell me please the job .* Graz' is not finite"
        with pytest.raises(InputError, match=rf"^layer 1: {wrong}; try --dtype float32$"):
            mean_reply_states(checkpoint, prompts, REPLIES[: len(prompts)], [1], 2)


def test_no_hook_stays_behind(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle")

    before = [dict(layer._forward_hooks) for layer in decoder_layers(checkpoint)]
    last_prompt_states(checkpoint, talker.prompts(), [0, 2])
    with monkeypatch.context() as patch:
        patch.setattr(decoder_layers(checkpoint)[1], "forward", failing)
        with pytest.raises(RuntimeError, match="in the middle"):
            last_prompt_states(checkpoint, talker.prompts(), [0, 2])
    assert [dict(layer._forward_hooks) for layer in decoder_layers(checkpoint)] == before
