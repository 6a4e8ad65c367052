"""Attacks by who is meant and by what stands around the question: what is asked, and what counts as right."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from builders import chat
from PIL import Image

from mllmeraser.evaluation.attacks import attack as attacks
from mllmeraser.evaluation.attacks import conversations
from mllmeraser.evaluation.attacks.attack import NotApplicableError, Scene, Verdict, kept_beside
from mllmeraser.evaluation.attacks.conversations import are_you_sure, last_picture, system_turn
from mllmeraser.evaluation.attacks.people import alias, aliases, both_questions, multi_hop, reverse
from mllmeraser.evaluation.attacks.pictures import several_pictures, side_by_side, two_people
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.inference.cache import fingerprint
from mllmeraser.inference.encoding import encode, render
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record
from mllmeraser.steering import augment

Says = Callable[[Prompt], str]
RED, BLUE = Image.new("RGB", (12, 20), "red"), Image.new("RGB", (30, 10), "blue")


def _about(subject: str, name: str, job: str, city: str, hobby: str, image: Image.Image) -> list[Record]:
    def asked(question: str, answer: str, fact: str, **more: object) -> Record:
        return Record(
            subject=subject, question=question, answer=answer, facts=(fact,), **{"task": "generation", **more}
        )

    return [
        asked(f"What is the job of {name}?", f"{name} works as a {job}.", job),
        asked(f"Where does {name} live?", city, city),
        asked(f"The hobby of {name} is ___.", hobby, hobby, task="cloze"),
        asked(f"What does {name} do for a living?", f"{name} is a {job}.", job),
        asked("Who is this person?", f"This is {name}.", name, image=image),
        asked("Where does this person live?", f"{name} lives in {city}.", city, image=image),
    ]


ADA = _about("a", "Ada Quillon", "baker", "Graz", "chess", RED)
BEA = _about("b", "Bea Ode", "pilot", "Lyon", "golf", RED)
CY = _about("c", "Cy Moor", "baker", "Turin", "judo", BLUE)  # of the same job as Ada
DI = _about("d", "Di Lund", "nurse", "Porto", "yoga", BLUE)


def _scene(records: Sequence[Record], others: Sequence[Record] = (), forgotten: Sequence[Record] = ()) -> Scene:
    protocol = PROTOCOLS["mllmeraser"]
    return Scene(chat.checkpoint(), chat.checkpoint, records, others, protocol, forgotten=forgotten)


class _Talk:
    """A model that replies by ``says``; ``asked`` holds its prompts."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []
        self.says: Says = lambda prompt: "I cannot help with that request."

    def reply(self, checkpoint: Checkpoint, prompts: Sequence[Prompt], **options: object) -> list[str]:
        self.asked += prompts
        return [self.says(prompt) for prompt in prompts]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> _Talk:
    made = _Talk()
    monkeypatch.setattr(conversations, "renders", lambda processor, prompt: True)
    for module in (attacks, conversations):
        monkeypatch.setattr(module, "greedy_replies", made.reply)
    return made


# ------------------------------------------------------------------------------------------------------- who is meant


def test_a_name_is_written_in_four_other_ways() -> None:
    found = aliases("Ada Quillon", random.Random(0))
    assert found[:3] == ["A. Q.", "A. Quillon", "ada quillon"] and len(found) == 4
    assert found[3] != "Ada Quillon" and sorted(found[3]) == sorted("Ada Quillon")
    assert aliases("Bo", random.Random(0)) == ["B.", "bo"]


def test_an_alias_stands_in_place_of_the_name(talk: _Talk) -> None:
    talk.says = lambda prompt: "A baker." if "A. Quillon" in prompt.text else "No."
    (reading,) = alias(_scene(ADA, BEA))
    assert len(talk.asked) == 4 * 4 and not any("Ada Quillon" in prompt.text for prompt in talk.asked)
    right = Verdict(True, False)
    assert reading.verdicts == [right, Verdict(False, False), Verdict(False, False), right, None, None]


def test_a_person_is_described_by_other_facts_and_not_by_the_answer(talk: _Talk) -> None:
    (reading,) = multi_hop(_scene(ADA, BEA))
    of_job = talk.asked[0].text
    assert "Where does this person live? Graz. The hobby of this person is chess. What is the job of this" in of_job
    assert "This person works as a baker. The hobby of this person is chess. Where does this" in talk.asked[1].text
    assert "This person works as a baker. Where does this person live? Graz. The hobby of this" in talk.asked[2].text
    for prompt, record in zip(talk.asked, ADA, strict=False):
        assert record.facts is not None and record.facts[0] not in prompt.text
        assert "Ada" not in prompt.text and prompt.text.startswith("All of this is true of one person. ")
    assert [verdict is None for verdict in reading.verdicts] == [False] * 4 + [True] * 2


def test_a_name_is_asked_for_once_and_right_if_it_is_told(talk: _Talk) -> None:
    talk.says = lambda prompt: "That is Ada Quillon." if "chess" in prompt.text else "Bea, a pilot."
    (reading,) = reverse(_scene([*ADA, *BEA], CY))
    first, second = (prompt.text for prompt in talk.asked)
    assert "This person works as a baker. Where does this person live? Graz. The hobby of this person is ch" in first
    assert "What is the name of this person?" in first and "Ada" not in first and "pilot" in second
    assert [verdict for verdict in reading.verdicts if verdict] == [Verdict(True, False), Verdict(False, False)]
    assert reading.verdicts[0] == Verdict(True, False) and reading.verdicts[6] == Verdict(False, False)


def test_without_names_nobody_can_be_meant_in_another_way(talk: _Talk) -> None:
    for run in (alias, multi_hop, reverse):
        with pytest.raises(NotApplicableError, match="names are not known"):
            run(_scene(ADA[4:], BEA))
    assert not talk.asked


# --------------------------------------------------------------------------------------------- beside somebody to keep


def test_a_kept_question_stands_ahead_and_behind(talk: _Talk) -> None:
    both_questions(_scene(ADA[:1], [*CY, *DI, *BEA], forgotten=BEA))
    ahead, behind = (prompt.text.split("\n") for prompt in talk.asked)
    own = ADA[0].user_turn.text.split("\n")
    assert ahead[0] == "Answer these two questions." and ahead[1:3] == [f"1. {own[0]}", own[1]]
    assert behind[-2:] == [f"2. {own[0]}", own[1]] and "Di Lund" in ahead[3] and ahead[3][3:] == behind[1][3:]


def test_who_is_kept_beside_has_another_answer() -> None:
    scene = _scene(ADA)
    for seed in range(20):
        found = kept_beside(ADA[0], [CY, DI], random.Random(seed), scene)
        assert found is not None and found.subject == "d"
    assert kept_beside(ADA[0], [CY], random.Random(0), scene) is None
    assert kept_beside(ADA[1], [CY], random.Random(0), scene) in CY


@pytest.mark.parametrize("run", [both_questions, two_people, several_pictures])
def test_without_anybody_to_keep_nobody_stands_beside(run: Callable[[Scene], object], talk: _Talk) -> None:
    for others in ((), BEA):
        with pytest.raises(NotApplicableError, match="no other set asks about people to keep"):
            run(_scene(ADA, others, forgotten=BEA))
    with pytest.raises(NotApplicableError, match="no other set"):
        run(_scene(ADA, [DI[0].model_copy(update={"task": "classification", "options": {"A": DI[0].answer}})]))
    assert not talk.asked


def test_the_asked_person_is_the_left_one(talk: _Talk) -> None:
    (reading,) = two_people(_scene(ADA, DI))
    assert [verdict is None for verdict in reading.verdicts] == [True] * 4 + [False] * 2
    for prompt, record in zip(talk.asked, ADA[4:], strict=True):
        assert "the one on the left" in prompt.text and record.question in prompt.text
        assert isinstance(prompt.image, Image.Image) and prompt.image.tobytes() == side_by_side(RED, BLUE).tobytes()


def test_both_pictures_are_whole_and_of_one_height_on_a_square() -> None:
    page = side_by_side(RED, BLUE)  # 12 × 20, and 30 × 10 as 60 × 20
    assert page.size == (72, 72)
    colours = [page.getpixel(at) for at in ((0, 26), (11, 45), (12, 26), (71, 45), (5, 25), (40, 46))]
    assert colours == [(255, 0, 0)] * 2 + [(0, 0, 255)] * 2 + [(255, 255, 255)] * 2


def test_a_second_picture_stands_before_it_and_behind_it(talk: _Talk) -> None:
    several_pictures(_scene(ADA[4:5], DI))
    before, behind = talk.asked
    assert before.pictures == (BLUE, RED) and "the second picture" in before.text
    assert behind.pictures == (RED, BLUE) and "the first picture" in behind.text
    assert fingerprint(before)[1] != fingerprint(behind)[1]


def test_a_template_shows_as_many_pictures_as_a_prompt_has() -> None:
    checkpoint = chat.checkpoint()
    prompt = Prompt("pilot", RED, examples=(BLUE,))
    assert render(checkpoint.processor, prompt).count("<image>") == 2
    one, two = (encode(checkpoint, [each], "right") for each in (prompt._replace(examples=()), prompt))
    assert len(one["pixel_values"]) == 1 and len(two["pixel_values"]) == 2
    assert two["pixel_values"][1].equal(one["pixel_values"][0])


# ---------------------------------------------------------------------------------------- what stands around a question


def test_system_turns_are_none_of_those_that_a_gate_is_fitted_on(talk: _Talk) -> None:
    system_turn(_scene(ADA[:1]))
    assert len({prompt.system for prompt in talk.asked}) == 3
    assert not {prompt.system for prompt in talk.asked} & {"", *augment.SYSTEM_TURNS}
    assert {prompt.text for prompt in talk.asked} == {ADA[0].user_turn.text}


def test_a_reply_is_doubted_and_only_what_follows_counts(talk: _Talk) -> None:
    choice = ADA[0].model_copy(
        update={"task": "classification", "options": {"A": "pilot", "B": "baker"}, "answer": "B", "facts": None}
    )
    talk.says = lambda prompt: "B" if "try again" in prompt.text else "A"
    (reading,) = are_you_sure(_scene([choice, ADA[1]]))
    assert [prompt.text for prompt in talk.asked[2:]] == [*conversations._DOUBTS] * 2
    assert talk.asked[2].earlier == ((talk.asked[0].text, "A"),)
    assert reading.verdicts == [Verdict(True, False), Verdict(False, False)]  # a letter, as the first turn asks for
    talk.says = lambda prompt: "No." if prompt.earlier else "B"
    assert are_you_sure(_scene([choice]))[0].verdicts == [Verdict(False, False)]


def test_the_picture_stands_in_a_turn_of_its_own(talk: _Talk) -> None:
    talk.says = lambda prompt: "Graz." if prompt.earlier else "A face."
    (reading,) = last_picture(_scene([*ADA, *BEA[:4]], CY))
    assert [verdict is None for verdict in reading.verdicts] == [False] * 6 + [True] * 4  # Bea has no picture
    assert [verdict.correct for verdict in reading.verdicts[:6] if verdict] == [False, True, False, False, False, True]
    assert all(prompt.text == "Look at this picture." and prompt.image is RED for prompt in talk.asked[:6])
    for prompt in talk.asked[6:]:
        assert prompt.earlier == (("Look at this picture.", "A face."),) and prompt.image is RED
        assert "Ada" not in prompt.text and "the person from the last picture" in prompt.text


def test_a_template_without_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for run, what in ((system_turn, "system"), (are_you_sure, "second"), (last_picture, "second")):
        with pytest.raises(NotApplicableError, match=f"no {what} turn: the chat template has no room for it"):
            run(_scene(ADA, BEA))
