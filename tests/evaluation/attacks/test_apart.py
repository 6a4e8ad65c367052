"""Attacks that stand apart: what they optimise, what they train and what they read out, on a tiny random model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import chat, tiny
from builders.records import some_records
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.evaluation.attacks import against_gate, published, tuned
from mllmeraser.evaluation.attacks.against_gate import (
    margin,
    optimised_picture,
    optimised_suffix,
    plain_tokens,
    searched,
)
from mllmeraser.evaluation.attacks.attack import NotApplicableError, Reading, Scene, Verdict
from mllmeraser.evaluation.attacks.published import guesses, read_out, sides
from mllmeraser.evaluation.attacks.tuned import fine_tuned
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.gates import GateValue, read_gates
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.pixels import seen
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.modeling_patches.steering_mllmeraser import RequestSteering
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

GENERATOR = torch.Generator().manual_seed(0)
FACES = [
    Image.fromarray(torch.randint(60, 196, (16, 16, 3), dtype=torch.uint8, generator=GENERATOR).numpy())
    for _ in range(4)
]
ASKED = [
    record.model_copy(update={"prompt": f"word{7 * i} word{i + 3} baker .", "image": face})
    for i, (record, face) in enumerate(zip(some_records(4)[::3], FACES, strict=True))
]
IN_WORDS = [record.model_copy(update={"image": None}) for record in ASKED]
KEPT = some_records(8)[12:]


def _steered(records: Sequence[Record], threshold: float = 0.5, **steering: object) -> Checkpoint:
    """A gate at layer 1 that reads 1, 0, 0.4 and −0.3 at the ends of four prompts, and a seal behind it."""
    base = chat.checkpoint()
    given: dict[str, Any] = {
        "kind": "kernel",
        "shape": "step",
        "threshold": threshold,
        "scope": "conversation",
        "edit": "seal",
        "layers": (2,),
        "gate_layer": 1,
        **steering,
    }
    part = tiny.steering(base.model, encode(base, [record.user_turn for record in records], "left"), **given)
    return replace(base, model=tiny.steered(base.model, part), steered=True)


def _scene(checkpoint: Checkpoint, records: Sequence[Record], others: Sequence[Record] = (), **given: Any) -> Scene:
    protocol = PROTOCOLS["mllmeraser"]
    return Scene(checkpoint, lambda: checkpoint, records, others, protocol, max_new_tokens=3, **given)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """Every prompt that is asked in the end."""
    prompts: list[Prompt] = []

    def see(scene: Scene, rows: Sequence[int], asked: Sequence[Prompt]) -> list[Reading]:
        prompts.extend(asked)
        return []

    monkeypatch.setattr(against_gate, "worst_of", see)
    return prompts


def _highest(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[float]:
    return [gate.value for (gate,) in read_gates(checkpoint, prompts)]


# ------------------------------------------------------------------------------------------------------ against a gate


def test_a_picture_is_changed_within_the_budget_until_the_gate_is_lower(asked: list[Prompt]) -> None:
    checkpoint = _steered(ASKED)
    scene = _scene(checkpoint, [*ASKED, IN_WORDS[0]])
    optimised_picture(scene)
    before, after = _highest(checkpoint, scene.turns[:4]), _highest(checkpoint, asked)
    assert len(asked) == 4 and all(new < old - 0.01 for new, old in zip(after, before, strict=True))
    for old, new in zip(scene.turns, asked, strict=False):
        assert new.text == old.text
        moved = seen(checkpoint, new) - seen(checkpoint, old)
        assert 0 < moved.abs().max() <= 8


def test_the_margin_is_the_highest_over_all_gates() -> None:
    entries = [{"gate": {"threshold": 0.5}}, {"gate": {"threshold": None}}]
    several: Any = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(steering={"requests": entries})))
    gates = {(0, 1): torch.tensor([0.9, 0.2]), (1, 1): torch.tensor([0.1, -0.1]), (1, 3): torch.tensor([0.2, -0.5])}
    assert margin(several, gates).tolist() == pytest.approx([0.4, -0.1])


@pytest.mark.parametrize("lowest", [0.6, 0.0])
def test_a_suffix_is_searched_until_the_gate_is_closed(lowest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate with a threshold of 0.5 that reads anything from ``lowest`` to 1, by the text."""
    turns = [record.user_turn for record in IN_WORDS]
    asked: list[list[str]] = [[] for _ in turns]

    def value(text: str) -> float:
        return lowest + (1 - lowest) * random.Random(text).random()

    def read(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[tuple[GateValue, ...]]:
        for prompt in prompts:
            (row,) = (row for row, turn in enumerate(turns) if prompt.text.startswith(f"{turn.text} "))
            asked[row].append(prompt.text)
        return [(GateValue("r1", 1, 0.5, value(prompt.text)), GateValue("r2", 1, 0.5, 0.0)) for prompt in prompts]

    monkeypatch.setattr(against_gate, "read_gates", read)
    checkpoint = chat.checkpoint()
    found = searched(checkpoint, turns, random.Random(0))
    for turn, new, tried in zip(turns, found, asked, strict=True):
        assert new == turn._replace(text=min(tried, key=value))
        closed = [value(text) < 0.5 for text in tried]
        assert closed == [False] * (len(tried) - 1) + [lowest == 0.0]
        assert len(tried) == 50 or closed[-1]
        suffixes = [text.removeprefix(turn.text).split() for text in tried]
        assert all(len(suffix) == 10 and set(suffix) <= set(plain_tokens(checkpoint)) for suffix in suffixes)
        for at, suffix in enumerate(suffixes[1:], 1):  # of the best one so far, one word is another
            best = min(suffixes[:at], key=lambda words, of=turn: value(f"{of.text} {' '.join(words)}"))
            assert sum(a != b for a, b in zip(best, suffix, strict=True)) <= 1


def test_a_searched_suffix_lowers_a_real_gate(asked: list[Prompt]) -> None:
    checkpoint = _steered(IN_WORDS)
    scene = _scene(checkpoint, IN_WORDS)
    optimised_suffix(scene)
    before, after = _highest(checkpoint, scene.turns), _highest(checkpoint, asked)
    assert [prompt.text.split()[:-10] for prompt in asked] == [turn.text.split() for turn in scene.turns]
    assert before[0] >= 0.5 and after[0] < before[0]


def test_a_model_without_a_gate_is_asked_as_it_is(asked: list[Prompt]) -> None:
    scene = _scene(chat.checkpoint(), [*ASKED, *IN_WORDS])
    optimised_picture(scene)
    optimised_suffix(scene)
    assert asked == [*scene.turns[:4], *scene.turns]
    with pytest.raises(NotApplicableError, match="no record has a picture"):
        optimised_picture(_scene(chat.checkpoint(), IN_WORDS))


def test_pictures_that_cannot_be_optimised_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(checkpoint: Checkpoint, prompt: Prompt) -> None:
        raise InputError("it shows tiles")

    monkeypatch.setattr(against_gate, "seen", refuse)
    with pytest.raises(NotApplicableError, match="pictures of this family cannot be optimised: it shows tiles"):
        optimised_picture(_scene(chat.checkpoint(), ASKED))


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("steered", [False, True])
def test_a_copy_learns_kept_answers_and_keeps_its_gates(steered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "STEPS", 4)
    monkeypatch.setattr(tuned, "LEARNING_RATE", 0.05)
    taught: list[Record] = []
    tunings: list[Checkpoint] = []

    def batch(checkpoint: Checkpoint, records: Sequence[Record]) -> Any:
        taught.extend(records)
        return tuned_batch(checkpoint, records)

    def ask(scene: Scene) -> list[Reading]:
        tunings.append(scene.checkpoint)
        return []

    tuned_batch = tuned.taught
    monkeypatch.setattr(tuned, "taught", batch)
    monkeypatch.setattr(tuned, "plain", ask)
    own = _steered(IN_WORDS) if steered else chat.checkpoint()
    before = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}

    def load() -> Checkpoint:
        copy = _steered(IN_WORDS) if steered else chat.checkpoint()
        torch.manual_seed(len(tunings))  # what is learnt follows the scene's seed alone
        return copy

    scene = replace(_scene(own, IN_WORDS, [*KEPT, *ASKED], forgotten=ASKED), load=load)
    fine_tuned(scene)
    fine_tuned(scene)
    assert {record.subject for record in taught} == {record.subject for record in KEPT}
    assert all(torch.equal(own.model.state_dict()[name], tensor) for name, tensor in before.items())
    first, second = (checkpoint.model.state_dict() for checkpoint in tunings)
    assert all(torch.equal(first[name], second[name]) for name in before)
    changed = {name for name, tensor in before.items() if not torch.equal(first[name], tensor)}
    assert changed and not any("steering" in name or "vision" in name for name in changed)
    assert tunings[0].steered is steered and not tunings[0].model.training


def test_a_step_has_records_with_pictures_or_without() -> None:
    found = list(tuned.drawn([*ASKED, *KEPT], random.Random(0)))
    assert len(found) == 50 and {len(records) for records in found} == {4, 8}
    assert all(len({bool(record.image) for record in records}) == 1 for records in found)


def test_without_people_to_keep_or_without_peft_nothing_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotApplicableError, match="people to keep"):
        fine_tuned(_scene(chat.checkpoint(), IN_WORDS))
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(NotApplicableError, match=r"needs the package peft; pip install 'mllmeraser\[baselines\]'"):
        fine_tuned(_scene(chat.checkpoint(), IN_WORDS, KEPT))


# ---------------------------------------------------------------------------------------------------- what is published


def _gate(checkpoint: Checkpoint) -> RequestSteering:
    return next(m for m in checkpoint.model.modules() if isinstance(m, RequestSteering) and m.reads)


def test_a_gate_has_vectors_that_open_it_and_as_many_that_do_not() -> None:
    gate = _gate(_steered(IN_WORDS))
    opening, rest = sides(gate)
    assert opening.equal(gate.landmarks[gate.weights > 0][gate.weights[gate.weights > 0].argsort(descending=True)])
    assert 0 < len(rest) <= len(opening)
    assert all((gate.weights[(gate.landmarks == row).all(dim=1)] <= 0).all() for row in rest)
    u = _gate(_steered(IN_WORDS, kind="linear"))
    assert [side.tolist() for side in sides(u)] == [[u.gate.tolist()], [(-u.gate).tolist()]]


def test_a_state_is_guessed_behind_a_projection() -> None:
    generator = torch.Generator().manual_seed(1)
    known = torch.randn(400, 4, generator=generator) @ torch.randn(4, 32, generator=generator) + 3
    signs = (torch.randint(0, 2, (8, 32), generator=generator) * 2 - 1).to(torch.int8)
    hidden = known[:5]
    size = (known @ signs.float().T).norm(dim=-1).median()
    z = torch.nn.functional.normalize(hidden @ signs.float().T, dim=-1)
    gate: Any = SimpleNamespace(signs=lambda: signs)
    blind, likely = guesses(gate, z, known)
    assert (blind @ signs.float().T).allclose(z * size, rtol=1e-3, atol=1e-2)  # R R⁺ z = z
    cosine = torch.nn.functional.cosine_similarity
    right = hidden * (size / (hidden @ signs.float().T).norm(dim=-1, keepdim=True))
    assert cosine(likely, right).min() > 0.98 and cosine(likely, right).min() > cosine(blind, right).max()


def test_a_state_put_in_is_what_the_base_goes_on_from() -> None:
    checkpoint = _steered(IN_WORDS)
    turns = [record.user_turn for record in IN_WORDS]
    layer = len(checkpoint.model.get_decoder().layers) - 1  # type: ignore[operator]
    with torch.inference_mode(), checkpoint.model.steering(enabled=False):  # type: ignore[operator]
        ends = torch.stack([published._states(checkpoint, [turn], layer)[-1] for turn in turns])
        said = list(published._decoded(checkpoint, Prompt("word9", None), ends, layer))
    greedy = greedy_reply_ids(chat.checkpoint(), turns, max_new_tokens=1)
    firsts = [checkpoint.processor.tokenizer.decode(ids) for ids in greedy]
    assert [reply.split()[0] for reply in said] == firsts and len(set(firsts)) > 1


def test_a_name_counts_once_and_beside_what_other_vectors_find(monkeypatch: pytest.MonkeyPatch) -> None:
    about = [
        Record(subject=who, question=what.format(name), answer="baker", task="generation")
        for who, name in (("a", "Ada Quill"), ("b", "Bea Ode"), ("c", "Cy Moor"), ("d", "Di Lund"))
        for what in ("Where is {}?", "Does {} sing?")
    ]
    checkpoint = _steered(IN_WORDS)
    opening, _ = sides(_gate(checkpoint))

    def said(scene: Scene, gate: RequestSteering, found: torch.Tensor) -> list[str]:
        assert not any(scene.checkpoint.model._steering.scales())  # type: ignore[union-attr, operator]
        return ["This is ada quill.", "Bea", "Ode. Di Lund!"] if found.equal(opening) else ["Di Lund lives in Graz."]

    monkeypatch.setattr(published, "_said", said)
    (reading,) = read_out(_scene(checkpoint, about, KEPT))
    told = [Verdict(name in "ad", False) for name in "abcd"]
    assert reading.verdicts == [verdict for each in told for verdict in (each, None)]
    assert reading.chance == 0.25 and reading.layer is None  # the report takes what has a layer for a probe
    (of_base,) = read_out(_scene(chat.checkpoint(), about, KEPT))
    assert {verdict for verdict in of_base.verdicts if verdict} == {Verdict(False, False)} and of_base.chance == 0
    with pytest.raises(NotApplicableError, match="names are not known"):
        read_out(_scene(checkpoint, about[::2], KEPT))


def test_every_vector_is_decoded_under_every_neutral_prompt() -> None:
    for projection, guessed in ((None, 1), (16, 2)):
        checkpoint = _steered(IN_WORDS, projection=projection)
        gate = _gate(checkpoint)
        with torch.inference_mode(), checkpoint.model.steering(enabled=False):  # type: ignore[operator]
            said = published._said(_scene(checkpoint, IN_WORDS, KEPT), gate, sides(gate)[0])
        assert len(said) == guessed * 3 * len(sides(gate)[0])
