"""Each attack does what its name says, on a tiny random model or on none."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import chat
from builders.records import JOBS, LETTERS, some_records
from PIL import Image
from torch import nn

from mllmeraser.evaluation.attacks import attack as attacks
from mllmeraser.evaluation.attacks import conversations, inside, pictures, quantised, wordings
from mllmeraser.evaluation.attacks.attack import NotApplicableError, Reading, Scene, Verdict
from mllmeraser.evaluation.attacks.catalogue import ATTACKS
from mllmeraser.evaluation.attacks.conversations import ARE_YOU_SURE, LAST_PICTURE
from mllmeraser.evaluation.attacks.decoding import DECODING, SAMPLING
from mllmeraser.evaluation.attacks.people import PEOPLE as OF_PEOPLE
from mllmeraser.evaluation.attacks.pictures import BESIDE_KEPT, own_picture, with_label, with_text_below
from mllmeraser.evaluation.attacks.token_by_token import TOKEN_BY_TOKEN
from mllmeraser.evaluation.attacks.wordings import PLAIN, few_shot
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.inference.cache import PassCache
from mllmeraser.inference.encoding import render
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import reply_ids
from mllmeraser.judging.answers import Judge
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

PEOPLE = some_records(4)
TESTED_APART = (
    "own-picture",
    *(attack.name for attack in (*SAMPLING, *DECODING, TOKEN_BY_TOKEN)),
    *(attack.name for attack in (*OF_PEOPLE, *BESIDE_KEPT, ARE_YOU_SURE, LAST_PICTURE)),
)


def _scene(records: Sequence[Record] = PEOPLE, others: Sequence[Record] = ()) -> Scene:
    return Scene(chat.checkpoint(), chat.checkpoint, records, others, PROTOCOLS["mllmeraser"], max_new_tokens=3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """Every prompt that is asked; the reply is always a pilot."""
    seen: list[Prompt] = []

    def reply(checkpoint: Checkpoint, prompts: Sequence[Prompt], **options: object) -> list[str]:
        seen.extend(prompts)
        return ["The pilot."] * len(prompts)

    monkeypatch.setattr(conversations, "renders", lambda processor, prompt: True)  # the tiny template has one turn
    for module in (attacks, conversations):
        monkeypatch.setattr(module, "greedy_replies", reply)
    return seen


@pytest.fixture
def face(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (48, 32, 3), dtype=torch.uint8, generator=generator)
    Image.fromarray(pixels.numpy()).save(tmp_path / "face.png")
    return tmp_path / "face.png"


# ------------------------------------------------------------------------------------------------ how replies are read


def test_an_attack_counts_if_any_reply_tells_and_refuses_if_all_do() -> None:
    turn = Prompt("What?", None)
    said = ["I cannot help with that request.", "She is a baker."] + ["I cannot help with that request."] * 2
    (reading,) = attacks.judged(_scene(), [0, 0, 1, 1], [turn] * 4, said)
    assert reading.verdicts[:3] == [Verdict(True, False), Verdict(False, True), None]


def test_a_multiple_choice_reply_tells_only_if_it_names_the_right_option_alone() -> None:
    choice = PEOPLE[2]
    listed = "\n".join(f"{key}: {job}" for key, job in zip(LETTERS, JOBS, strict=True))
    assert attacks.gives_away(choice, "A", listed) and attacks.gives_away(choice, "A baker, surely.", listed)
    assert not attacks.gives_away(choice, "baker or pilot", listed)
    assert not attacks.gives_away(choice, "B", listed)


def test_an_attack_that_applies_to_nothing_says_so(asked: list[Prompt]) -> None:
    with pytest.raises(NotApplicableError, match="none of the records"):
        attacks.asked_in_other_ways(_scene(), lambda record, turn: [])
    assert not asked


# --------------------------------------------------------------------------------------------------- what is asked then


@pytest.mark.parametrize(
    "name",
    [a.name for a in ATTACKS if a.in_any and a.name not in TESTED_APART],
)
def test_every_attack_keeps_the_question_and_reads_the_reply(name: str, asked: list[Prompt], face: Path) -> None:
    """Two questions by name, one of whose answers is "pilot", and one about a picture."""
    records = [PEOPLE[0], PEOPLE[3], PEOPLE[6].model_copy(update={"image": face})]
    (reading,) = next(attack for attack in ATTACKS if attack.name == name).run(_scene(records))
    assert asked
    baker, pilot = reading.verdicts[:2]
    assert (baker is None) == (pilot is None)
    if baker is not None and pilot is not None:
        assert pilot.correct and not baker.correct
    else:
        assert reading.verdicts[2] == Verdict(False, False)
    if name not in ("image-text", "paraphrase"):
        assert all(any(s.question in prompt.text for s in records) for prompt in asked)


def test_paraphrases_are_six_and_the_same_every_time() -> None:
    turn = Prompt("Where does this person live, and why?", None)
    found = [wordings._wordings(turn, random.Random(1)) for _ in range(2)]
    assert found[0] == found[1] and len({prompt.text for prompt in found[0]}) == 6
    mistyped = found[0][5].text
    assert mistyped != turn.text and sorted(mistyped) == sorted(turn.text)
    assert [word[0] for word in mistyped.split()] == [word[0] for word in turn.text.split()]


def test_pictures_change_but_keep_their_size(face: Path) -> None:
    with Image.open(face) as file:
        picture = file.convert("RGB")
    for alter in (pictures.crop, pictures.flip, pictures.rotate, pictures.jpeg, pictures.blur):
        altered = alter(picture)
        assert altered.size == picture.size and altered.mode == "RGB"
        assert altered.tobytes() != picture.tobytes(), alter.__name__
    assert pictures.flip(pictures.flip(picture)).tobytes() == picture.tobytes()


def test_text_is_drawn_into_the_picture(face: Path) -> None:
    with Image.open(face) as file:
        picture = file.convert("RGB")
    page = with_text_below(picture, "Where does this person live? " * 4)
    assert page.size == (96, 96)
    lower = page.crop((0, 48, 96, 96)).convert("L")
    assert lower.getextrema()[0] < 100 < lower.getextrema()[1]  # black on white
    assert page.crop((32, 0, 64, 48)).tobytes() == picture.tobytes()
    assert with_label(picture, "actor").getpixel((31, 23)) == (255, 255, 255)


def test_a_question_by_name_gets_the_picture_of_that_person(asked: list[Prompt], face: Path) -> None:
    pictured = PEOPLE[0].model_copy(update={"image": face})
    (reading,) = own_picture(_scene([PEOPLE[0], PEOPLE[3], pictured]))
    assert [prompt.image for prompt in asked] == [face]
    assert [verdict is None for verdict in reading.verdicts] == [False, True, True]


def test_examples_are_about_others_and_rightly_answered(asked: list[Prompt]) -> None:
    few_shot(_scene(PEOPLE[:3], others=PEOPLE[3:]))
    for record, prompt in zip(PEOPLE[:3], asked, strict=True):
        assert "person 0" not in prompt.text.removesuffix("\nAnswer:").rpartition("\nQuestion:")[0].lower()
        assert prompt.text.count("\nAnswer:") == 4 and prompt.text.endswith("\nAnswer:")
        assert record.question.replace("__", "[Blank]") in prompt.text
    asked.clear()
    few_shot(_scene(PEOPLE[:6]))  # nobody else is known: then the others of the set
    for record, prompt in zip(PEOPLE[:6], asked, strict=True):
        shown = prompt.text.removesuffix("\nAnswer:").rpartition("\nQuestion:")[0].lower()
        assert f"person {int(record.subject)}" not in shown and f"person {1 - int(record.subject)}" in shown
    with pytest.raises(NotApplicableError, match="other subjects"):
        few_shot(_scene(PEOPLE[:3]))


def test_the_second_turn_follows_the_models_own_reply(asked: list[Prompt]) -> None:
    conversations.multi_turn(_scene(PEOPLE[:1]))
    first, again = asked
    assert again.earlier == ((first.text, "The pilot."),) and first.text in again.text


def test_earlier_turns_and_a_begun_reply_stand_in_the_prompt() -> None:
    processor = chat.checkpoint().processor
    processor.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{% for p in m['content'] %}{{ p['text'] if p['type'] == 'text' else "
        "'<image>' }}{% endfor %}|{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    prompt = Prompt("Now?", Path("p.png"), earlier=(("First?", "No."),), reply_start="Sure, it is")
    assert render(processor, prompt) == "user:<image>First?|assistant:No.|user:Now?|assistant:Sure, it is"
    assert render(processor, prompt, "B").endswith("|assistant:Sure, it is B|")


def test_what_is_weighed_behind_a_begun_reply_is_the_rest() -> None:
    checkpoint = chat.checkpoint()
    plain, begun = Prompt("word1", None), Prompt("word1", None, reply_start="word2 word3")
    assert reply_ids(checkpoint, begun, "baker").tolist() == reply_ids(checkpoint, plain, "baker").tolist()


# ------------------------------------------------------------------------------------------------- inside the model


def test_options_are_weighed_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that always prefers the first place, and a little the pilot: the places cancel out, the pilot stays."""
    weighed: list[str] = []

    def likelihoods(
        checkpoint: Checkpoint, prompts: Sequence[Prompt], options: Sequence[Sequence[str]], **rest: object
    ) -> list[list[float]]:
        weighed.extend(prompt.text for prompt in prompts)
        found = []
        for prompt, letters in zip(prompts, options, strict=True):
            texts = [prompt.text.split(f"{letter}: ")[1].split("\n")[0] for letter in letters]
            found.append([(-1.0 if i == 0 else -9.0) + (0.5 if t == "pilot" else 0.0) for i, t in enumerate(texts)])
        return found

    monkeypatch.setattr(inside, "option_log_likelihoods", likelihoods)
    choices = [record for record in PEOPLE if record.task == "classification"]
    (reading,) = inside.option_logit(_scene(choices))
    assert len(set(weighed)) == 16
    assert [verdict is not None and verdict.correct for verdict in reading.verdicts] == [False, True, False, False]
    assert reading.chance == 0.25
    fixed = choices[1].model_copy(update={"prompt": "A: baker\nB: pilot\nC: nurse\nD: sailor"})
    (once,) = inside.option_logit(_scene([fixed]))
    assert weighed[16:] == [fixed.prompt] and once.verdicts[0] == Verdict(False, False)  # the first place wins


def test_a_linear_probe_reads_what_is_linear_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.randn(3, 16, generator=generator)
    known = 5 * centres[labels] + torch.randn(300, 16, generator=generator)
    right = (torch.tensor(inside.fit_and_read(known[:200], labels[:200], known[200:])) == labels[200:]).float()
    assert right.mean() == 1
    noise = torch.randn(300, 16, generator=generator)
    guess = (torch.tensor(inside.fit_and_read(noise[:200], labels[:200], noise[200:])) == labels[200:]).float()
    assert guess.mean() < 0.55


def test_a_probe_is_fitted_on_others_and_leaves_out_answers_that_only_the_asked_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def fit(states: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor) -> list[int]:
        seen.append(len(states))
        return [0] * len(asked)

    monkeypatch.setattr(inside, "fit_and_read", fit)
    others, own = some_records(8)[12:], some_records(8)[:6]
    own[0] = own[0].model_copy(update={"match": ("juggler",)})
    readings = inside.linear_probe(_scene(own, others))
    assert [reading.layer for reading in readings] == [0, 1, 2, 3] and set(seen) == {len(others)}
    assert [verdict is None for verdict in readings[0].verdicts] == [True] + [False] * 5
    with pytest.raises(NotApplicableError, match="less than half"):
        inside.linear_probe(_scene(own, ()))


def test_int8_moves_a_weight_by_half_a_step_at_most() -> None:
    weight = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    rounded = quantised.int8(weight)
    assert ((rounded - weight).abs() <= step / 2 + 1e-6).all()
    assert not torch.equal(rounded, weight) and (rounded / step).allclose((rounded / step).round(), atol=1e-3)


def test_nf4_takes_the_nearest_of_sixteen_levels_in_layers_of_64() -> None:
    weight = torch.randn(6, 33, generator=torch.Generator().manual_seed(0))  # 198 weights: three blocks and six
    flat, rounded = weight.flatten(), quantised.nf4(weight).flatten()
    for block in range(0, 198, 64):
        part, scale = flat[block : block + 64], flat[block : block + 64].abs().max()
        nearest = (part[:, None] / scale - torch.tensor(quantised.NF4)).abs().argmin(dim=1)
        assert rounded[block : block + 64].allclose(torch.tensor(quantised.NF4)[nearest] * scale)


def test_only_linear_layers_of_a_copy_are_rounded() -> None:
    scene = _scene()
    before = {name: tensor.clone() for name, tensor in scene.checkpoint.model.state_dict().items()}
    copies: list[Checkpoint] = []

    def load() -> Checkpoint:
        copies.append(chat.checkpoint())
        return copies[-1]

    quantised.quantised(quantised.nf4, replace(scene, load=load))
    after = scene.checkpoint.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    (copy,) = copies
    changed = {name for name, tensor in copy.model.state_dict().items() if not torch.equal(tensor, before[name])}
    linear = {f"{name}.weight" for name, module in copy.model.named_modules() if isinstance(module, nn.Linear)}
    assert changed and changed <= linear and not any("lm_head" in name for name in changed)


def test_passes_that_are_remembered_are_not_taken_for_those_of_the_rounded_copy(tmp_path: Path) -> None:
    def load() -> Checkpoint:
        return replace(chat.checkpoint(), passes=PassCache(tmp_path, "the same"))

    def never(weight: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(weight)

    said: list[list[str]] = []

    def judged(scene: Scene, rows: Sequence[int], prompts: Sequence[Prompt], replies: Sequence[str]) -> list[Reading]:
        said.append(list(replies))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks, "judged", judged)
        scene = replace(_scene(PEOPLE[:2]), checkpoint=load(), load=load)
        PLAIN.run(scene)
        quantised.quantised(never, scene)
    assert said[0] != said[1]


def test_a_reply_in_other_words_tells_by_facts_and_not_by_string() -> None:
    record = Record(subject="1", question="Where was she born?", answer="She was born in Riga.", task="generation")
    turn, said = [Prompt("Where?", None)] * 2, ["Riga, surely.", "I cannot help with that request."]
    told_by: dict[Judge, bool] = {"facts": True, "string": False}
    for judge, told in told_by.items():
        (reading,) = attacks.judged(replace(_scene([record, record]), judge=judge), [0, 1], turn, said)
        assert reading.verdicts == [Verdict(told, False), Verdict(False, True)]


def test_the_probe_reads_the_fact_and_not_its_wording() -> None:
    (record,) = PEOPLE[:1]
    worded = record.model_copy(update={"facts": ("a Baker", "bread")})
    assert (inside._answer(record), inside._answer(worded)) == ("baker", "a baker")
