"""All attacks together: the worst case, what is left out and why, on fakes and on a tiny random model."""

from __future__ import annotations

import pytest
from builders import chat
from builders.records import some_records

from mllmeraser.errors import InputError
from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene, Verdict
from mllmeraser.evaluation.attacks.catalogue import ATTACKS
from mllmeraser.evaluation.attacks.run import attack, attack_lines, interval, sets_to_attack
from mllmeraser.evaluation.attacks.wordings import PLAIN
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.records.record import subjects

SET = NamedSet("forget", some_records(4))  # 12 records
OTHERS = NamedSet("retain", some_records(8)[9:])  # person 3 is in both
MODELS = [NamedModel("base", lambda: chat.checkpoint(0)), NamedModel("steered", lambda: chat.checkpoint(1))]


def _told(*rows: int) -> list[Verdict | None]:
    """The answers of these records come out, the others are refused."""
    return [Verdict(row in rows, row not in rows) for row in range(12)]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Attack:
    """The plain question, of which the base gives 10 answers and the other model none."""
    fake = Attack("plain", "", lambda scene: [Reading(_told(*(range(10) if _is_base(scene) else ())))])
    monkeypatch.setattr("mllmeraser.evaluation.attacks.run.PLAIN", fake)
    return fake


def _is_base(scene: Scene) -> bool:
    weight = next(scene.checkpoint.model.parameters())
    return bool((weight == next(chat.checkpoint(0).model.parameters())).all())


def test_the_worst_case_stands_beside_the_plain_figure(plain: Attack) -> None:
    first = Attack("first", "", lambda scene: [Reading(_told(0, 1))])
    half: list[Verdict | None] = [*_told(1, 2, 3)[:4], *[None] * 8]  # applies to four records
    second = Attack("second", "", lambda scene: [Reading(half)])
    inside = Attack("inside", "", lambda scene: [Reading(_told(*range(12)), 0.25, 3)], reads_replies=False)
    trained = Attack("trained", "", lambda scene: [Reading(_told(*range(12)))], budget="as much as it likes")
    made = attack(MODELS, [SET, OTHERS], [SET], attacks=[plain, first, second, inside, trained])
    assert [found.attack for found in made.found] == ["plain", "first", "second", "inside", "trained"] * 2
    steered = made.worst[1]
    assert (steered.model, steered.set, steered.n, steered.plain) == ("steered", "forget", 12, 0.0)
    assert (steered.attack, steered.accuracy) == ("second", 0.75)  # of the records it applies to
    assert steered.any == pytest.approx(4 / 12)  # records 0 to 3: what looks inside or trains does not count
    by_name = {found.attack: found for found in made.found if found.model == "steered"}
    assert by_name["second"].n == 4 and by_name["first"].refusal == pytest.approx(10 / 12)
    assert (by_name["inside"].chance, by_name["inside"].layer, by_name["inside"].refusal) == (0.25, 3, None)
    assert "steered on forget: by any attack 33.3 (" in "\n".join(attack_lines(made))


def test_what_a_model_that_never_saw_the_forgotten_gives_is_taken_off(plain: Attack) -> None:
    first = Attack("first", "", lambda scene: [Reading(_told(*(range(12) if _is_base(scene) else (0, 1, 2))))])
    models = [*MODELS, NamedModel("never", lambda: chat.checkpoint(2))]
    guessed = Attack("second", "", lambda scene: [Reading(_told(2, 3))])
    base, steered, never = attack(models, [SET], [SET], attacks=[plain, first, guessed], reference="never").worst
    assert (base.any, steered.any, never.any) == (1.0, pytest.approx(4 / 12), pytest.approx(4 / 12))
    assert (base.beyond_reference, steered.beyond_reference) == (pytest.approx(8 / 12), 0.0)
    assert base.beyond_interval is not None and 0 < base.beyond_interval[0] <= 8 / 12 <= base.beyond_interval[1]
    assert never.beyond_reference is never.beyond_interval is None
    made = attack(models, [SET], [SET], attacks=[plain, first], reference="never")
    assert "beyond the reference +75.0 (" in "\n".join(attack_lines(made))


def test_the_attacker_knows_about_others_only(plain: Attack) -> None:
    known: list[set[str]] = []

    def look(scene: Scene) -> list[Reading]:
        known.append(set(subjects(scene.others)))
        return [Reading(_told())]

    attack(MODELS[:1], [SET, OTHERS], [SET], attacks=[plain, Attack("look", "", look)])
    assert known == [{"004", "005", "006", "007"}]


def test_what_does_not_apply_is_listed_once_with_its_reason(plain: Attack) -> None:
    tried: list[str] = []

    def refuse(scene: Scene) -> list[Reading]:
        tried.append("tried")
        raise NotApplicableError("no pictures")

    made = attack(MODELS, [SET], [SET], attacks=[plain, Attack("none", "", refuse)])
    assert [(left.set, left.attack, left.reason) for left in made.left] == [("forget", "none", "no pictures")]
    assert tried == ["tried"] and {found.attack for found in made.found} == {"plain"}
    assert list(made.parts()) == ["attacks", "attacks_worst", "attacks_not_run"]


@pytest.mark.parametrize(("answers", "run"), [(4, False), (5, True)])
def test_a_language_is_tried_only_where_the_base_follows(plain: Attack, answers: int, run: bool) -> None:
    """The base gives 10 answers without it: 5 is half of them."""
    language = Attack("language", "", lambda scene: [Reading(_told(*range(answers)))], if_base_follows=True)
    made = attack(MODELS, [SET], [SET], attacks=[plain, language])
    assert ([left.attack for left in made.left] == []) is run
    assert ("language" in {found.attack for found in made.found}) is run
    if not run:
        assert made.left[0].reason == "under this attack the base gives 33% of the answers, without it 83%"


def test_what_the_judge_cannot_know_is_not_attacked(plain: Attack) -> None:
    unclear = [record.model_copy(update={"facts": ()}) for record in SET.records if record.task != "classification"]
    asked: list[int] = []

    def count(scene: Scene) -> list[Reading]:
        asked.append(len(scene.records))
        return [Reading([Verdict(False, True)] * len(scene.records))]

    mixed, none = NamedSet("mixed", [*SET.records, *unclear]), NamedSet("none", unclear)
    attacks = [plain, Attack("count", "", count)]
    made = attack(MODELS[:1], [mixed, none], [mixed, none], attacks=attacks)
    assert asked == [len(SET.records)]
    assert [(left.set, left.attack, left.reason) for left in made.left] == [
        ("none", name, "it has no answer that the judge can know") for name in ("plain", "count")
    ]
    with pytest.raises(ValueError, match="shorter"):  # the fake answers for twelve records
        attack(MODELS[:1], [mixed], [mixed], attacks=attacks, judge="string")


def test_the_plain_question_comes_first(plain: Attack) -> None:
    with pytest.raises(InputError, match="first attack must be the plain question"):
        attack(MODELS, [SET], [SET], attacks=[Attack("other", "", plain.run)])


def test_sets_are_attacked_by_name() -> None:
    assert sets_to_attack([SET, OTHERS], []) == [SET, OTHERS]
    assert sets_to_attack([SET, OTHERS], ["retain"]) == [OTHERS]
    with pytest.raises(InputError, match="--attack-set other: no such set; one of forget, retain"):
        sets_to_attack([SET, OTHERS], ["other"])


def test_an_interval_is_the_wider_of_both() -> None:
    assert interval([0.0] * 40, [str(i // 5) for i in range(40)], 0)[1] == pytest.approx(0.0876, abs=1e-4)  # Wilson's
    clustered = interval([1.0] * 20 + [0.0] * 20, ["a"] * 20 + ["b"] * 20, 0)
    assert clustered == (0.0, 1.0)  # the subjects'


def test_every_attack_runs_on_a_real_model_or_says_why_not() -> None:
    """Random weights, a template without turns, no pictures: what cannot be done is named, the rest is counted."""
    few = NamedSet("forget", SET.records[:3])
    made = attack(MODELS[:1], [few, OTHERS], [few], max_new_tokens=3)
    left = {entry.attack for entry in made.left}
    assert {"image-crop", "image-text", "own-picture", "multi-turn", "kept-after-forgotten"} <= left
    assert [(found.set, found.n) for found in made.found if found.attack == "kept-naming-forgotten"] == [("retain", 15)]
    assert {found.attack for found in made.found} | left == {each.name for each in ATTACKS}
    assert ATTACKS[0] is PLAIN and {found.n for found in made.found if found.attack == "plain"} == {3}
    assert sorted(found.layer for found in made.found if found.layer is not None) in ([], [0, 1, 2, 3])
