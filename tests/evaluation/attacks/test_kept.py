"""Kept questions beside forgotten ones: what is asked, with whose replies, and what is compared with the base."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from builders import chat
from builders.records import some_records

from mllmeraser.evaluation.attacks import attack as attacks
from mllmeraser.evaluation.attacks import kept
from mllmeraser.evaluation.attacks.attack import NotApplicableError, Scene, Verdict
from mllmeraser.evaluation.attacks.kept import after_forgotten, names_of, naming_forgotten
from mllmeraser.evaluation.attacks.run import attack, attack_lines
from mllmeraser.evaluation.attacks.wordings import PLAIN
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.judging.results_file import AttackRow
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

KEPT = some_records(4)[:6]
REFUSAL = "I cannot help with that request."
Says = Callable[[Prompt], str]


def _about(name: str, subject: str, *, image: Path | None = None) -> list[Record]:
    texts = ("What is the job of {}?", "Where does {} live?", "{}'s hobby is __.")
    asked = [text.format("this person" if image else name) for text in texts]
    return [Record(subject=subject, question=text, answer="baker", task="cloze", image=image) for text in asked]


FORGOTTEN = [*_about("Ada Quill", "f1"), *_about("Bo O'Neil-Ray", "f2"), *_about("", "f2", image=Path("f.png"))]


def _scene(checkpoint: Checkpoint, base: Checkpoint | None = None, **given: Sequence[Record]) -> Scene:
    records = {"records": KEPT, "others": FORGOTTEN, "forgotten": FORGOTTEN, **given}
    return Scene(
        checkpoint,
        chat.checkpoint,
        protocol=PROTOCOLS["mllmeraser"],
        base=None if base is None else lambda: base,
        **records,  # type: ignore[arg-type]
    )


class _Talk:
    """Models that reply by a rule of the prompt; ``asked`` holds every prompt with the model that got it."""

    def __init__(self) -> None:
        self.rules: dict[int, Says] = {}
        self.asked: list[tuple[Checkpoint, Prompt]] = []

    def model(self, says: Says) -> Checkpoint:
        made = chat.checkpoint()
        self.rules[id(made.model)] = says
        return made

    def reply(self, checkpoint: Checkpoint, prompts: Sequence[Prompt], **options: object) -> list[str]:
        self.asked += [(checkpoint, prompt) for prompt in prompts]
        return [self.rules[id(checkpoint.model)](prompt) for prompt in prompts]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> _Talk:
    made = _Talk()
    monkeypatch.setattr(kept, "renders", lambda processor, prompt: True)
    for module in (attacks, kept):
        monkeypatch.setattr(module, "greedy_replies", made.reply)
    return made


def test_a_kept_question_follows_a_forgotten_one_and_the_models_own_reply(talk: _Talk) -> None:
    own = talk.model(lambda prompt: "The pilot." if prompt.earlier else f"Of {prompt.text}")
    (reading,) = after_forgotten(_scene(own))
    openings, second = talk.asked[:6], talk.asked[6:]
    assert {prompt.text for _, prompt in openings} <= {PROTOCOLS["mllmeraser"].turn(record) for record in FORGOTTEN}
    for (_, first), (_, then), record in zip(openings, second, KEPT, strict=True):
        assert then.earlier == ((first.text, f"Of {first.text}"),)
        assert then.text == record.user_turn.text and then.image == first.image
    assert reading.verdicts[0] == Verdict(False, False) and reading.verdicts[3] == Verdict(True, False)
    assert reading.said == [["The pilot."]] * 6 and not reading.of_base
    everybody = {turn for _, prompt in openings for turn in [prompt.text]}
    assert len(everybody) > 3


def test_the_base_is_asked_the_same_conversation(talk: _Talk) -> None:
    base = talk.model(lambda prompt: "The pilot." if prompt.earlier else "The answer.")
    own = talk.model(lambda prompt: REFUSAL)
    (reading,) = after_forgotten(_scene(own, base))
    of_own = [prompt for checkpoint, prompt in talk.asked if checkpoint is own and prompt.earlier]
    of_base = [prompt for checkpoint, prompt in talk.asked if checkpoint is base]
    assert of_base == of_own and of_base[0].earlier[0][1] == REFUSAL
    assert reading.said == [[REFUSAL]] * 6 and reading.of_base == [["The pilot."]] * 6
    assert all(verdict == Verdict(False, True) for verdict in reading.verdicts)


def test_a_picture_stands_in_the_first_turn_and_a_conversation_has_one(talk: _Talk) -> None:
    own = talk.model(lambda prompt: "")
    pictured = [record.model_copy(update={"image": Path("kept.png")}) for record in KEPT]
    after_forgotten(_scene(own, records=pictured))
    pictures = [record.user_turn.text for record in FORGOTTEN if record.image]
    assert {prompt.image for _, prompt in talk.asked} == {Path("kept.png")}
    assert not any(prompt.text in pictures for _, prompt in talk.asked[:6])
    talk.asked.clear()
    (mixed,) = after_forgotten(_scene(own, records=[*pictured[:1], *KEPT[1:]], forgotten=FORGOTTEN[6:]))
    assert {prompt.image for _, prompt in talk.asked} == {Path("f.png")}  # the forgotten one's, where both need none
    assert [verdict is None for verdict in mixed.verdicts] == [True] + [False] * 5
    with pytest.raises(NotApplicableError, match="none of the records"):
        after_forgotten(_scene(own, records=pictured, forgotten=FORGOTTEN[6:]))


def test_a_name_stands_for_a_wrong_option_or_in_a_sentence_ahead(talk: _Talk) -> None:
    naming_forgotten(_scene(talk.model(lambda prompt: "")))
    texts = [prompt.text for _, prompt in talk.asked]
    for record, text in zip(KEPT, texts, strict=True):
        (name,) = [name for name in ("Ada Quill", "Bo O'Neil-Ray") if name in text]
        if record.task == "classification":
            wrong = next(job for key, job in (record.options or {}).items() if key != record.answer)
            assert text == record.user_turn.text.replace(wrong, name) and record.answer_text in text
        else:
            assert text == f"Greetings from {name}. {record.user_turn.text}"
    assert sum("Ada Quill" in text for text in texts) == 3


def test_the_right_option_of_a_question_that_names_somebody_counts(talk: _Talk) -> None:
    choices = [KEPT[2], KEPT[5].model_copy(update={"prompt": "Is person 1 a baker or a baker, pilot, nurse, sailor?"})]
    (reading,) = naming_forgotten(
        _scene(talk.model(lambda prompt: "A" if "A: " in prompt.text else "pilot"), records=choices)
    )
    assert reading.verdicts == [Verdict(True, False)] * 2
    first, second = (prompt.text for _, prompt in talk.asked)
    assert "A: baker\nB: " in first and "B: pilot" not in first
    assert (
        second.startswith("Is person 1 a baker or a baker, pilot, ") and "nurse" not in second
    )  # "baker" stands twice


def test_names_are_found_in_the_questions() -> None:
    for seed in range(3):
        records = random.Random(seed).sample(FORGOTTEN, len(FORGOTTEN))
        assert names_of(records, KEPT) == {"f1": "Ada Quill", "f2": "Bo O'Neil-Ray"}
    same = [Record(subject="k", question=f"Does Ada {word} in Quill?", answer="x", task="cloze") for word in "ab"]
    assert names_of(FORGOTTEN[:3], same) == {"f1": "Ada Quill"}
    told = [
        Record(subject="f3", question=f"Tell me in one sentence: {what}", answer="x", task="cloze")
        for what in ("who is Ada?", "Ada lives in __.")
    ]
    frame = [Record(subject="k", question="Tell me in one sentence: is it dry?", answer="x", task="cloze")]
    assert names_of(told, frame) == {"f3": "Ada"}
    assert names_of(FORGOTTEN[:1], KEPT) == {"f1": "“What is the job of Ada Quill?”"}
    assert names_of(FORGOTTEN[6:], KEPT) == {}


def test_what_cannot_be_asked_says_why(talk: _Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    own = talk.model(lambda prompt: "")
    for run in (after_forgotten, naming_forgotten):
        with pytest.raises(NotApplicableError, match="no set asks about the forgotten"):
            run(_scene(own, forgotten=()))
    with pytest.raises(NotApplicableError, match="their names are not known"):
        naming_forgotten(_scene(own, forgotten=FORGOTTEN[6:]))
    monkeypatch.undo()
    with pytest.raises(NotApplicableError, match="no second turn"):
        after_forgotten(_scene(own))
    assert not talk.asked


# ------------------------------------------------------------------------------------------------- the rows that result

SETS = [NamedSet("forget", FORGOTTEN[:6]), NamedSet("retain", KEPT), NamedSet("common", KEPT[:3])]


@pytest.fixture
def models(talk: _Talk, monkeypatch: pytest.MonkeyPatch) -> list[NamedModel]:
    """A base that always says "pilot", and a model that refuses wherever Bo O'Neil-Ray is named in a conversation."""

    def refuses(prompt: Prompt) -> str:
        known = (prompt.text, *(text for turn in prompt.earlier for text in turn))
        return REFUSAL if any("O'Neil" in text for text in known) else "The pilot."

    base, own = talk.model(lambda prompt: "The pilot."), talk.model(refuses)
    return [NamedModel("base", lambda: base), NamedModel("steered", lambda: own)]


def test_kept_sets_get_both_rows_whichever_set_is_attacked(models: list[NamedModel]) -> None:
    made = attack(models, SETS, SETS[:1], attacks=[PLAIN, *kept.KEPT])
    rows = {(row.model, row.set, row.attack): row for row in made.found}
    assert {(name, what) for _, name, what in rows} == {
        ("forget", "plain"),
        *((name, each.name) for name in ("retain", "common") for each in kept.KEPT),
    }
    after = rows["steered", "retain", "kept-after-forgotten"]
    assert after.identical_to_base == 1 - (after.refusal or 0) and 0 < after.identical_to_base < 1
    assert {row.identical_to_base for row in made.found if row.model == "base"} == {1.0}
    assert [(worst.model, worst.set) for worst in made.worst] == [("base", "forget"), ("steered", "forget")]
    assert not made.left


def test_they_do_not_count_in_the_worst_case(talk: _Talk) -> None:
    own = talk.model(lambda prompt: "The pilot." if prompt.earlier or "Greetings" in prompt.text else "")
    made = attack([NamedModel("base", lambda: own)], SETS, SETS[1:2], attacks=[PLAIN, *kept.KEPT])
    assert [(row.attack, row.accuracy > 0) for row in made.found if row.set == "retain"] == [
        ("plain", False),
        *((each.name, True) for each in kept.KEPT),
    ]
    (worst,) = made.worst
    assert (worst.attack, worst.accuracy, worst.any) == ("plain", 0, 0)


def test_the_row_is_compared_with_the_base_in_the_same_conversation(talk: _Talk) -> None:
    base = talk.model(lambda prompt: "No pilot." if REFUSAL in dict(prompt.earlier).values() else "The pilot.")
    own = talk.model(lambda prompt: "No pilot." if prompt.earlier else REFUSAL)
    loaded = [NamedModel("base", lambda: base), NamedModel("steered", lambda: own)]
    made = attack(loaded, SETS, SETS[:1], attacks=[PLAIN, *kept.KEPT])
    found = {row.attack: row.identical_to_base for row in made.found if (row.model, row.set) == ("steered", "retain")}
    assert found == {"kept-after-forgotten": 1, "kept-naming-forgotten": 0}


def test_a_person_reads_a_line_a_row(models: list[NamedModel]) -> None:
    made = attack(models, SETS, SETS[:1], attacks=[PLAIN, *kept.KEPT])
    lines = attack_lines(made)
    assert lines.index("kept questions beside forgotten ones, in %:") == 3
    assert "  base on retain: kept-after-forgotten: right 50.0, refused 0.0, as the base 100.0" in lines
    rows = [line for line in lines if "kept-" in line]
    assert len(rows) == 8 and all("right" in line and "refused" in line for line in rows)
    none = attack(models, SETS[1:], SETS[1:2], attacks=[PLAIN, *kept.KEPT])
    assert "kept questions beside forgotten ones, in %:" not in attack_lines(none)
    assert {(left.set, left.attack) for left in none.left} == {
        (name, each.name) for name in ("retain", "common") for each in kept.KEPT
    }


def test_every_attack_on_replies_is_compared_with_the_base(models: list[NamedModel]) -> None:
    made = attack(models, SETS, SETS[:1], attacks=[PLAIN])
    base, steered = made.found
    assert base.identical_to_base == 1 and steered.identical_to_base == 0.5
    inside = {"model": "m", "set": "s", "attack": "a", "n": 1, "accuracy": 0.5, "interval": (0.0, 1.0)}
    assert AttackRow.model_validate(inside).identical_to_base is None  # as in files of earlier versions
