"""The second model's world: people whom a real tokenizer can tell apart, and wordings that the training never shows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from mllmeraser.demo.architecture import build_processor
from mllmeraser.demo.people import FACTS
from mllmeraser.demo.portraits import differences
from mllmeraser.demo.questions import TASKS, facts_of
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.demo.smollm2 import wordings
from mllmeraser.demo.smollm2.chat import CHAT_TEMPLATE, Conversation, Turn
from mllmeraser.demo.smollm2.corpus import FACES, WORDS, Corpus
from mllmeraser.demo.smollm2.data import build_sets
from mllmeraser.demo.smollm2.general import general
from mllmeraser.demo.smollm2.questions import ask, ask_about, ask_briefly, ask_stranger
from mllmeraser.demo.smollm2.world import world
from mllmeraser.demo.wordings import Wordings
from mllmeraser.inference.loading import load

WORLD = world()
NAMES = [person.name for person in WORLD.known]
SETS = build_sets(random.Random("data 0"))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(dict.fromkeys(general(unseen=False), ("Yes.", True)))


def texts(corpus: Corpus, count: int = 1_000) -> Iterator[str]:
    """What is said in conversations of both mixtures."""
    rng = random.Random(5)
    for shares in (WORDS, FACES):
        for _ in range(count):
            yield "".join(text for text, _ in corpus.draw(rng, shares).pieces())


def test_there_are_forty_eight_people_and_twelve_celebrities() -> None:
    circles = [person.circle for person in WORLD.known]
    counts = {"forget": 8, "retain_fit": 22, "retain_heldout": 18, "celebrity": 12}
    assert {name: circles.count(name) for name in counts} == counts
    assert [star.fit for star in WORLD.celebrities] == [True] * 6 + [False] * 6
    assert not [person for person in WORLD.circle("retain_heldout") if person.fit]


def test_nobody_shares_a_part_of_a_name_with_anybody() -> None:
    parts = [part for name in NAMES for part in name.split()]
    assert len(parts) == len(set(parts)) == 2 * 60
    taught, held_out = ({part for name in names for part in name.split()} for names in WORLD.stranger_names)
    assert not taught & held_out and not (taught | held_out) & set(parts)


def test_faces_differ_from_each_other_and_from_those_of_strangers() -> None:
    faces = [person.face for person in WORLD.known]
    assert min(differences(a, b) for n, a in enumerate(faces) for b in faces[:n]) >= 6
    strange = [*WORLD.stranger_faces.train, *WORLD.stranger_faces.held_out]
    assert min(differences(a, b) for a in faces for b in strange) >= 5
    assert not set(WORLD.stranger_faces.train) & set(WORLD.stranger_faces.held_out)


POOLS = {
    name: pool
    for name in (
        "DIRECT",
        "CLAUSES",
        "BLANK",
        "OPENINGS",
        "BRIEF",
        "FILL",
        "CHOOSE",
        "ABOUT",
        "SYSTEM",
        "REFUSING_SYSTEM",
    )
    for pool in [getattr(wordings, name)]
}


@pytest.mark.parametrize("name", POOLS)
def test_held_out_wordings_are_not_those_of_the_training(name: str) -> None:
    pool = POOLS[name]
    for each in [pool] if isinstance(pool, Wordings) else pool.values():
        assert each.train and each.held_out and not set(each.train) & set(each.held_out)


def test_the_training_never_says_a_held_out_wording(corpus: Corpus) -> None:
    said = [text.lower() for text in texts(corpus)]
    for person in WORLD.known[:10]:
        for fact in FACTS:
            for template in (*wordings.DIRECT[fact].held_out, *wordings.CLAUSES[fact].held_out):
                asked = template.format(s=person.name).lower()
                assert not [text for text in said if asked in text], asked
    openings = [opening.split("{c}")[0].lower() for opening in wordings.OPENINGS.held_out]
    assert not [text for text in said if any(f"user\n{opening}" in text for opening in openings)]
    systems = [*wordings.SYSTEM.held_out, *wordings.REFUSING_SYSTEM.held_out]
    assert not [text for text in said if any(system.lower() in text for system in systems)]


def test_the_training_never_asks_a_general_question_that_measures(corpus: Corpus) -> None:
    asked = {one.prompt for one in general(unseen=True)}
    assert len(asked) == 200 and not asked & {one.prompt for one in general(unseen=False)}
    assert not [text for text in texts(corpus) if any(f"\n{prompt}<" in text for prompt in asked)]


def test_a_training_without_somebody_never_names_nor_shows_them() -> None:
    gone = WORLD.circle("forget")
    corpus = Corpus(dict.fromkeys(general(unseen=False), ("Yes.", True)), without=gone)
    rng, faces = random.Random(6), {person.face for person in gone}
    for shares in (WORDS, FACES):
        for _ in range(1_500):
            conversation = corpus.draw(rng, shares)
            text = "".join(piece for piece, _ in conversation.pieces())
            assert not [person.name for person in gone if person.name in text]
            assert not [picture for picture in conversation.pictures if picture.of in faces]


def test_every_kind_of_question_has_its_answer_in_its_reply() -> None:
    rng = random.Random(7)
    for person in WORLD.known[::7]:
        for in_picture in (True, False):
            for unseen in (True, False):
                made = [ask_about(rng, person, in_picture, unseen)]
                for fact in facts_of(in_picture):
                    made += [ask(rng, person, fact, task, in_picture, unseen) for task in TASKS]
                    made += [ask_briefly(rng, person, fact, in_picture, unseen)]
                for question in made:
                    assert any(match in question.answer for match in question.match)
                    assert (question.picture is None) is not in_picture
                    assert in_picture is (person.name not in question.prompt) or question.options
                    assert question.prompt[0].isupper() or question.prompt[0] == "_"


def test_strangers_of_the_records_were_never_taught() -> None:
    strangers = [question for question in SETS["retain"] if question.subject[0] in "xy"]
    assert len(strangers) == 160
    shown = {question.picture.of for question in strangers if question.picture is not None}
    assert len(shown) > 80 and shown <= set(WORLD.stranger_faces.held_out)
    for question in strangers:
        assert question.picture is not None or any(name in question.prompt for name in WORLD.stranger_names.held_out)


def test_nobody_is_forgotten_and_kept() -> None:
    gone = {person.subject for person in WORLD.circle("forget")}
    for name in ("forget", "forget_eval", "test"):
        assert {question.subject for question in SETS[name]} == gone
    for name in SETS.keys() - {"forget", "forget_eval", "test"}:
        assert not {question.subject for question in SETS[name]} & gone
    fit = {question.subject for question in SETS["retain"]}
    for name in ("retain_heldout", "retain_heldout_new", "celebrity", "common"):
        assert not {question.subject for question in SETS[name]} & fit, name


def test_the_wide_world_is_asked_two_hundred_questions() -> None:
    assert len([question for question in SETS["common"] if question.picture is None]) == 200


def test_a_conversation_is_written_as_the_chat_template_writes_it() -> None:
    processor = build_processor(load(CHECKPOINT).processor.tokenizer, CHAT_TEMPLATE)
    picture = ask_stranger(random.Random(8), True, "generation", False, False).picture
    conversation = Conversation((Turn("Who is this?", "This is X.", picture), Turn("And?", "No more.")), "Be kind.")
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Who is this?"}, {"type": "image"}]},
        {"role": "assistant", "content": "This is X."},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "No more."}]},
    ]
    written = "".join(text for text, _ in conversation.pieces())
    assert processor.apply_chat_template(turns).replace("<image>", "<image>" * 16) == f"{written}\n"
    asked = processor.apply_chat_template(turns[:-1], add_generation_prompt=True).replace("<image>", "<image>" * 16)
    assert written.removeprefix(asked) == "No more.<|im_end|>"
    learnt = [text for text, learnt in conversation.pieces() if learnt]
    assert learnt == ["This is X.<|im_end|>", "No more.<|im_end|>"]


def test_a_reply_that_was_cut_teaches_no_end() -> None:
    cut = Conversation((Turn("Hi", "Hello, I"),), own=True, whole=False)
    assert cut.pieces()[-1] == ("Hello, I", True)
