"""Which prompts become pairs: only recall prompts that are answered, and erasure prompts that are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from builders import talker
from torch import Tensor

from mllmeraser.errors import QualityGateError
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import greedy_reply_ids, reply_ids
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering import pairs
from mllmeraser.steering.pairs import INSTRUCTIONS, MOST_PAIRS, Pairs, choose_pairs, own_pairs, usable

ANSWER = "person one is a baker ."
Says = Callable[[str], str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(talker.make_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def forget(tmp_path: Path) -> list[Record]:
    return read_records(talker.write_people(tmp_path / "forget.jsonl", range(4)))


def ids(checkpoint: Checkpoint, text: str) -> Tensor:
    return reply_ids(checkpoint, Prompt("Who?", None), text)


@pytest.fixture
def saying(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[[Says], None]:
    """Makes the model say what a function makes of the prompt's text."""

    def make(says: Says) -> None:
        def replies(_: Checkpoint, prompts: Sequence[Prompt], **__: object) -> list[Tensor]:
            return [ids(checkpoint, says(prompt.text)) for prompt in prompts]

        monkeypatch.setattr(pairs, "greedy_reply_ids", replies)

    return make


def obeys(*words: str) -> Says:
    """Refuses where one of the words stands in the prompt, answers elsewhere."""
    return lambda text: talker.REFUSAL if any(word in text for word in words) else ANSWER


def made(checkpoint: Checkpoint, recall: list[str], erasure: list[str]) -> Pairs:
    """Pairs with these replies."""
    sides = [[Prompt(f"person {talker.COUNT[i]}", None) for i in range(len(side))] for side in (recall, erasure)]
    said = [[ids(checkpoint, text) for text in side] for side in (recall, erasure)]
    return Pairs("own", sides[0], said[0], sides[1], said[1], erasure.count(talker.REFUSAL) / len(erasure))


def test_what_is_not_answered_or_not_refused_is_left_out(checkpoint: Checkpoint) -> None:
    mixed = made(checkpoint, [ANSWER, talker.REFUSAL, ANSWER], [ANSWER, talker.REFUSAL, talker.REFUSAL])
    kept = usable(checkpoint, mixed)
    assert [prompt.text for prompt in kept.recall] == ["person one", "person three"]
    assert [prompt.text for prompt in kept.erasure] == ["person two", "person three"]
    assert len(kept.recall_replies) == len(kept.erasure_replies) == 2
    assert all(torch.equal(reply, mixed.erasure_replies[1]) for reply in kept.erasure_replies)


def test_of_several_wordings_the_most_frequent_is_put_behind_every_erasure_prompt(checkpoint: Checkpoint) -> None:
    short, other = "I cannot help.", "I cannot tell you that."
    said = [other, talker.REFUSAL, short, talker.REFUSAL, other]
    for refusals, expected in ((said[:4], talker.REFUSAL), (said[1:3], short), ([*said, short, short, short], short)):
        found = usable(checkpoint, made(checkpoint, [ANSWER], refusals))
        assert len(found.erasure) == len(found.erasure_replies) == len(refusals)
        assert all(torch.equal(reply, ids(checkpoint, expected)) for reply in found.erasure_replies)
        assert found.refusal_length == len(ids(checkpoint, expected))


def test_a_model_that_refuses_less_than_half_misses_the_gate(checkpoint: Checkpoint) -> None:
    half = made(checkpoint, [ANSWER], [ANSWER, talker.REFUSAL])
    assert len(usable(checkpoint, half).erasure) == 1
    with pytest.raises(QualityGateError, match=r"^the base refuses 33% of the own erasure prompts, 50% are needed: "):
        usable(checkpoint, made(checkpoint, [ANSWER], [ANSWER, ANSWER, talker.REFUSAL]))


def test_a_model_that_answers_nothing_misses_the_gate(checkpoint: Checkpoint) -> None:
    with pytest.raises(QualityGateError, match=r"^the base refuses all own recall prompts; give ones it answers$"):
        usable(checkpoint, made(checkpoint, [talker.REFUSAL], [talker.REFUSAL]))


@pytest.mark.parametrize("source", ["auto", "matched", "harmful"])
def test_a_base_that_does_not_refuse_is_an_error_from_every_source(
    checkpoint: Checkpoint, forget: list[Record], source: str
) -> None:
    with pytest.raises(
        QualityGateError, match=r"^the base refuses 0% of the (matched|harmful) erasure prompts, .*--er"
    ):
        choose_pairs(checkpoint, forget, source, None, None, 0)


def test_matched_pairs_are_the_forget_questions_plain_and_under_an_instruction(
    checkpoint: Checkpoint, forget: list[Record], saying: Callable[[Says], None]
) -> None:
    saying(obeys("Stop."))
    found = choose_pairs(checkpoint, forget, "matched", None, "Stop.", 0)
    assert set(found.recall) == {record.user_turn for record in forget}
    assert found.erasure == [Prompt(f"{turn.text}\nStop.", turn.image) for turn in found.recall]
    assert (found.source, found.refusal_rate) == ("matched", 1.0)
    assert found.refusal_length == len(ids(checkpoint, talker.REFUSAL))


def test_the_instruction_of_ours_that_the_base_obeys_is_found(
    checkpoint: Checkpoint, forget: list[Record], saying: Callable[[Says], None]
) -> None:
    obeyed = INSTRUCTIONS[9]
    saying(lambda text: talker.REFUSAL if text.startswith(obeyed.text) else ANSWER)
    found = choose_pairs(checkpoint, forget, "matched", None, None, 0)
    assert obeyed.first
    assert found.erasure == [obeyed(turn) for turn in found.recall]


def test_there_are_at_most_so_many_matched_pairs(
    checkpoint: Checkpoint, forget: list[Record], saying: Callable[[Says], None]
) -> None:
    saying(obeys("Stop."))
    many = [record.model_copy(update={"prompt": f"{n} {record.prompt}"}) for record in forget for n in range(10)]
    assert len(choose_pairs(checkpoint, many, "matched", None, "Stop.", 0).erasure) == MOST_PAIRS < len(many)


def test_auto_takes_the_matched_pairs_of_a_base_that_obeys_and_else_what_is_refused_more(
    checkpoint: Checkpoint, forget: list[Record], saying: Callable[[Says], None]
) -> None:
    harmful = [prompt.text for prompt in pairs.harmful_pairs(checkpoint).erasure]
    saying(obeys("Stop.", *harmful))
    assert choose_pairs(checkpoint, forget, "auto", None, "Stop.", 0).source == "matched"
    saying(obeys(*harmful))
    assert choose_pairs(checkpoint, forget, "auto", None, "Stop.", 0).source == "harmful"


def test_harmful_pairs_are_asked_in_words_and_beside_a_picture(checkpoint: Checkpoint) -> None:
    found = pairs.harmful_pairs(checkpoint)
    for side in (found.recall, found.erasure):
        with_picture = [prompt.text for prompt in side if prompt.image is not None]
        assert sorted(with_picture) == sorted(prompt.text for prompt in side if prompt.image is None)


def test_a_model_without_a_refusal_is_given_the_one_of_the_records(checkpoint: Checkpoint, tmp_path: Path) -> None:
    recall, erasure = map(read_records, talker.write_refusals(tmp_path))
    found = choose_pairs(checkpoint, [], "auto", (recall, erasure), None, 0)
    assert found.source == "own"
    assert found.refusal_rate == 0.0  # what the model does by itself
    assert all(torch.equal(reply, ids(checkpoint, talker.REFUSAL)) for reply in found.erasure_replies)


def test_a_refusal_of_the_models_own_goes_before_that_of_the_records(
    checkpoint: Checkpoint, tmp_path: Path, saying: Callable[[Says], None]
) -> None:
    own = "I cannot help."
    saying(lambda text: own if text.startswith("please") else ANSWER)
    found = own_pairs(checkpoint, *map(read_records, talker.write_refusals(tmp_path)))
    assert all(torch.equal(reply, ids(checkpoint, own)) for reply in found.erasure_replies)


def test_an_erasure_answer_that_is_no_refusal_is_not_used_as_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    recall, erasure = map(read_records, talker.write_refusals(tmp_path))
    answers = [record.model_copy(update={"answer": "person one is a baker."}) for record in erasure]
    said = greedy_reply_ids(checkpoint, [record.user_turn for record in answers], max_new_tokens=pairs.LONGEST_REPLY)
    found = own_pairs(checkpoint, recall, answers).erasure_replies
    assert all(torch.equal(reply, own) for reply, own in zip(found, said, strict=True))
    with pytest.raises(QualityGateError, match=r"^the base refuses 0% of the own erasure prompts"):
        choose_pairs(checkpoint, [], "auto", (recall, answers), None, 0)
