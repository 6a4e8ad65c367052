"""r_{l,k} against a plain loop over pairs, one at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import plain_states, talker

from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.steering.direction import erasure_directions
from mllmeraser.steering.pairs import Pairs

RECALL, ERASURE = talker.prompts()[:3], talker.prompts()[3:]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # states are fp32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(talker.make_base(tmp_path_factory.mktemp("base")))


def pairs(answers: list[list[int]], refusals: list[list[int]]) -> Pairs:
    """Replies by token ids."""
    return Pairs("own", RECALL, list(map(torch.tensor, answers)), ERASURE, list(map(torch.tensor, refusals)), 1.0)


def test_a_direction_is_mean_erasure_minus_mean_recall_at_each_position(checkpoint: Checkpoint) -> None:
    asked = pairs([[5, 6, 7], [8, 9], [10, 11, 12, 13]], [[20, 21, 22], [23, 24, 25, 26], [27, 28]])
    directions = erasure_directions(replace(checkpoint, batch_size=2), asked, [0, 2], steps=3)
    for layer in (0, 2):
        assert directions[layer].dtype == torch.float64
        for k in range(3):
            erasure = plain_states.mean_along_replies(checkpoint, ERASURE, asked.erasure_replies, layer, k)
            recall = plain_states.mean_along_replies(checkpoint, RECALL, asked.recall_replies, layer, k)
            torch.testing.assert_close(directions[layer][k], erasure - recall, **CLOSE)


def test_one_step_is_the_direction_of_the_paper(checkpoint: Checkpoint) -> None:
    """Only the last prompt token is read: what is said afterwards does not matter."""
    one = erasure_directions(checkpoint, pairs([[5], [6], [7]], [[20], [21], [22]]), [1], steps=1)[1]
    other = erasure_directions(checkpoint, pairs([[8, 9], [9], [9]], [[30], [31], [32, 33]]), [1], steps=1)[1]
    assert one.shape == (1, 32)
    torch.testing.assert_close(one, other, **CLOSE)


def test_where_no_answer_is_long_enough_the_last_one_that_is_stands_in(checkpoint: Checkpoint) -> None:
    asked = pairs([[5], [6, 7], [8]], [[20, 21, 22], [23, 24], [25]])  # answers reach k = 1, refusals k = 2
    directions = erasure_directions(checkpoint, asked, [1], steps=5)[1]
    recall = plain_states.mean_along_replies(checkpoint, RECALL, asked.recall_replies, 1, 1)
    erasure = plain_states.mean_along_replies(checkpoint, ERASURE, asked.erasure_replies, 1, 2)
    for k in (2, 3, 4):
        torch.testing.assert_close(directions[k], erasure - recall, **CLOSE)
