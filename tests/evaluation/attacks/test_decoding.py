"""Attacks by decoding: the settings are in force, every reply is read, and a loop of one's own changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from builders import chat, tiny
from builders.records import some_records
from PIL import Image

from mllmeraser.evaluation.attacks import decoding, token_by_token
from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene
from mllmeraser.evaluation.attacks.decoding import BANNED_REFUSAL, N_BEST, NO_END, NO_REPETITION, SAMPLING
from mllmeraser.evaluation.attacks.token_by_token import TOKEN_BY_TOKEN
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import greedy_replies, greedy_reply_ids
from mllmeraser.records.prompts import Prompt

PEOPLE = some_records(4)
TOKENS = 6


def _scene(checkpoint: Checkpoint | None = None, seed: int = 0, records: int = 2) -> Scene:
    own, protocol = checkpoint or chat.checkpoint(), PROTOCOLS["mllmeraser"]
    return Scene(own, chat.checkpoint, PEOPLE[:records], (), protocol, max_new_tokens=TOKENS, seed=seed)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[list[list[str]]]:
    """The replies that an attack reads, by record."""
    found: list[list[list[str]]] = []

    def judged(scene: Scene, rows: Sequence[int], prompts: Sequence[Prompt], said: Sequence[str]) -> list[Reading]:
        assert [prompt.text for prompt in prompts] == [scene.turns[row].text for row in rows]
        records = range(len(scene.records))
        found.append([[said[at] for at, row in enumerate(rows) if row == record] for record in records])
        return []

    for module in (decoding, token_by_token):
        monkeypatch.setattr(module, "judged", judged)
    return found


@pytest.mark.parametrize("attack", SAMPLING, ids=lambda attack: attack.name)
def test_drawn_replies_are_eight_and_follow_the_seed(attack: Attack, read: list[list[list[str]]]) -> None:
    for seed in (0, 0, 1):
        attack.run(_scene(seed=seed))
    assert read[0] == read[1] != read[2]
    assert [len(replies) for replies in read[0]] == [8, 8] and len({*read[0][0], *read[0][1]}) > 8


def test_a_higher_temperature_draws_less_likely_replies(read: list[list[list[str]]]) -> None:
    scene = _scene()
    head = scene.checkpoint.model.get_output_embeddings()
    head.weight.data *= 30  # so sure that at temperature 1 hardly anything else is drawn
    (likeliest, _) = greedy_replies(scene.checkpoint, scene.turns, max_new_tokens=TOKENS)
    for attack in SAMPLING:
        attack.run(scene)
    cold, hot = (replies.count(likeliest) for (replies, _) in read)
    assert cold > hot


def test_all_beams_are_read_and_the_likeliest_comes_first(read: list[list[list[str]]]) -> None:
    scene = _scene()
    N_BEST.run(scene)
    ((replies, others),) = read
    assert len(set(replies)) == len(set(others)) == 16
    with torch.inference_mode():
        inputs = encode(scene.checkpoint, scene.turns[:1], "left")
        model: Any = scene.checkpoint.model
        best = model.generate(**inputs, max_new_tokens=TOKENS, num_beams=16, do_sample=False, pad_token_id=0)
    best = best[:, inputs["input_ids"].shape[1] :]
    assert scene.checkpoint.processor.tokenizer.decode(best[0], skip_special_tokens=True).strip() == replies[0]


def test_a_reply_goes_on_behind_its_end(read: list[list[list[str]]]) -> None:
    scene = _scene(records=1)
    (ids,) = greedy_reply_ids(scene.checkpoint, scene.turns, max_new_tokens=TOKENS)
    end = int(ids[1])  # now the second token ends a reply
    scene.checkpoint.model.generation_config.eos_token_id = end
    assert len(greedy_reply_ids(scene.checkpoint, scene.turns, max_new_tokens=TOKENS)[0]) <= 2
    NO_END.run(scene)
    (((ignored, forbidden),),) = read
    assert len(ignored.split()) == len(forbidden.split()) == TOKENS
    word = scene.checkpoint.processor.tokenizer.decode([end])
    assert word in ignored.split() and word not in forbidden.split()


def test_a_long_reply_repeats_nothing(read: list[list[list[str]]]) -> None:
    scene = replace(_scene(records=1), max_new_tokens=24)
    unread = scene.checkpoint.processor.tokenizer.all_special_ids
    scene.checkpoint.model.generation_config.suppress_tokens = unread  # so that replies show every token
    (plain,) = greedy_replies(scene.checkpoint, scene.turns, max_new_tokens=24)
    NO_REPETITION.run(scene)
    (((penalised, without_pairs),),) = read

    def pairs(reply: str) -> list[tuple[str, str]]:
        said = reply.split()
        return list(pairwise(said))

    assert len(set(pairs(plain))) < len(pairs(plain))  # a random model repeats itself
    assert len(set(pairs(without_pairs))) == len(pairs(without_pairs)) == 23
    assert len(set(penalised.split())) > len(set(plain.split()))


def test_the_tokens_of_refusals_are_forbidden(read: list[list[list[str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = _scene()
    plain = greedy_replies(scene.checkpoint, scene.turns, max_new_tokens=TOKENS)
    BANNED_REFUSAL.run(scene)
    assert read.pop() == [[reply] for reply in plain]  # it refuses nothing, so nothing is forbidden
    monkeypatch.setattr(decoding, "is_refusal", lambda reply: reply.strip() == plain[0])
    BANNED_REFUSAL.run(scene)
    refused = plain[0].split()
    for first, every in read.pop():
        assert refused[0] not in first.split() and not set(refused) & set(every.split())


def test_a_prompt_fed_token_by_token_gets_the_greedy_reply(read: list[list[list[str]]]) -> None:
    scene = _scene(records=3)
    pictured = PEOPLE[0].model_copy(update={"image": Image.new("RGB", (16, 16), "red")})
    scene = replace(scene, records=[*scene.records, pictured])
    greedy = greedy_replies(scene.checkpoint, scene.turns, max_new_tokens=TOKENS)
    widths: list[int] = []

    def see(module: object, args: object, kwargs: dict[str, Any]) -> None:
        widths.append(kwargs["inputs_embeds"].shape[1])

    decoder: Any = scene.checkpoint.model.get_decoder()  # type: ignore[operator]
    hook = decoder.register_forward_pre_hook(see, with_kwargs=True)
    TOKEN_BY_TOKEN.run(scene)
    hook.remove()
    assert read == [[[reply] for reply in greedy]]
    (ids,) = encode(scene.checkpoint, [scene.turns[3]], "right")["input_ids"]
    piece = token_by_token.first_piece(scene.checkpoint, ids, True)
    image = scene.checkpoint.processor.tokenizer.convert_tokens_to_ids("<image>")
    assert 1 < piece < len(ids) and ids[piece - 1] == image and not (ids[piece:] == image).any()
    assert sorted(set(widths)) == [1, piece] and widths.count(piece) == 1
    in_words = encode(scene.checkpoint, scene.turns[:3], "left")["attention_mask"].sum()
    assert sum(widths) == int(in_words) + len(ids) + 4 * (TOKENS - 1)


def test_a_gate_that_reads_everywhere_recognises_whoever_is_fed_token_by_token(read: list[list[list[str]]]) -> None:
    scene = _scene(records=1)
    batch = encode(scene.checkpoint, scene.turns, "left")
    part = tiny.steering(
        scene.checkpoint.model, batch, kind="kernel", shape="step", threshold=0.5, scope="conversation", edit="seal"
    )
    steered = replace(scene.checkpoint, model=tiny.steered(chat.checkpoint().model, part), steered=True)
    TOKEN_BY_TOKEN.run(scene)
    TOKEN_BY_TOKEN.run(replace(scene, checkpoint=steered))
    base, sealed = read
    assert base != sealed
