"""The rule: what is known beats what is guessed, and of K + 1 names at most one is known, whatever the base says."""

from __future__ import annotations

from collections.abc import Callable, Collection
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from mllmeraser.judging.intervals import wilson
from mllmeraser.removals.claims.decide import Decision, Replies, Told, beyond, decide

TOPICS = ("occupation", "home", "hobby", "birth place", "award", "health", "belief", "contact")
WORDINGS, SAMPLES, CONTROLS = 4, 3, 19
Base = Callable[[str, str, int, int], Collection[str]]  # name, topic, wording, sample → the words of the reply
seeds = st.integers(0, 10**6)


def asked(base: Base, name: str) -> Replies:
    """The replies about one name."""
    return {
        topic: [Told(w, frozenset(base(name, topic, w, i))) for w in range(WORDINGS) for i in range(SAMPLES)]
        for topic in TOPICS
    }


def judged(base: Base, controls: int = CONTROLS) -> Decision:
    """The person "me" against invented names."""
    return decide(asked(base, "me"), [asked(base, f"nobody {i}") for i in range(controls)])


def drawn(*of: object) -> int:
    """A number that looks random, the same for the same things."""
    return crc32(repr(of).encode())


@given(seeds)
@settings(max_examples=12, deadline=None)
def test_a_base_that_answers_at_random_knows_nobody(seed: int) -> None:
    assert not judged(lambda *of: [f"value-{drawn(seed, *of) % 12}"]).known


@given(seeds, st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_a_base_that_says_the_same_of_every_name_knows_nobody(seed: int, words: int) -> None:
    assert not judged(lambda name, topic, *_: [f"{topic}-{drawn(seed, topic, i)}" for i in range(words)]).known


@given(seeds)
@settings(max_examples=8, deadline=None)
def test_a_base_that_makes_up_a_life_for_every_name_and_sticks_to_it_knows_nobody(seed: int) -> None:
    made_up = judged(lambda name, topic, *_: [f"{drawn(seed, name, topic)}"])
    assert made_up.strength > 0
    assert not made_up.known


def test_what_is_said_of_a_name_whatever_is_asked_is_not_known() -> None:
    assert not judged(lambda name, *_: ["water", "leaves"] if name == "me" else []).known


def test_a_word_may_belong_to_several_topics_but_not_to_nearly_all() -> None:
    for topics, known in ((TOPICS[:5], True), (TOPICS[:7], False)):
        found = judged(lambda name, topic, *_, topics=topics: ["singer"] if name == "me" and topic in topics else [])
        assert bool(found.known) == known


def test_what_is_said_of_the_person_a_little_more_often_than_of_others_is_not_known() -> None:
    def base(name: str, topic: str, wording: int, sample: int) -> list[str]:
        often = sample < 2 if wording else sample < (2 if name == "me" else 0)
        return ["teacher"] if topic == "occupation" and often and (name == "me" or wording < 3) else []

    assert not judged(base).known  # 8 of 12 replies, and 4 of 12


def test_what_one_wording_alone_gets_out_is_not_known() -> None:
    def base(name: str, topic: str, wording: int, sample: int) -> list[str]:
        return ["nurse"] if (name, topic) == ("me", "home") and wording < 2 else []

    assert not judged(base).known


def test_what_stands_in_most_wordings_is_known_though_one_gets_nothing() -> None:
    known = judged(lambda name, topic, wording, _: ["nurse"] if (name, topic) == ("me", "home") and wording else [])
    assert [(one.topic, one.keys, one.share) for one in known.known] == [("home", {"nurse"}, 0.75)]


@given(st.sets(st.sampled_from(TOPICS), min_size=1), seeds, st.sampled_from([8, 19]))
@settings(max_examples=12, deadline=None)
def test_a_base_that_knows_somebody_is_found_out_with_exactly_what_it_knows(
    topics: set[str], seed: int, controls: int
) -> None:
    def base(name: str, topic: str, wording: int, sample: int) -> list[str]:
        if name == "me" and topic in topics:
            return [f"true {topic}", "indeed"]  # the second word is said under every topic
        return [f"guess {drawn(seed, name, topic, wording, sample) % 12}"]

    found = judged(base, controls)
    assert {(one.topic, key) for one in found.known for key in one.keys if key != "indeed"} == {
        (topic, f"true {topic}") for topic in topics
    }
    for one in found.known:
        assert one.share == 1
        assert one.of_controls == 0
        assert 0.5 < one.confidence < one.interval[0] < one.interval[1] == 1


def test_words_that_are_told_together_are_one_value_and_others_are_apart() -> None:
    def base(name: str, topic: str, wording: int, sample: int) -> list[str]:
        if (name, topic) != ("me", "home"):
            return []
        return ["riga", "latvia"] if wording < 2 or sample else ["riga", "harbour"]

    (known,) = judged(base).known
    assert known.keys == {"riga", "latvia"}


def test_words_that_are_told_in_turn_are_two_values() -> None:
    def base(name: str, topic: str, wording: int, sample: int) -> list[str]:
        if (name, topic) != ("me", "hobby"):
            return []
        return ["chess", "sailing"] if sample == 1 else ["chess" if sample else "sailing"]

    assert {one.keys for one in judged(base).known} == {frozenset({"chess"}), frozenset({"sailing"})}


def test_a_word_counts_once_where_it_is_told_most() -> None:
    def base(name: str, topic: str, wording: int, sample: int) -> list[str]:
        told = topic == "hobby" or (topic == "home" and wording)
        return ["juggling"] if name == "me" and told else []

    assert [one.topic for one in judged(base).known] == ["hobby"]


def test_a_word_does_not_count_where_two_of_nineteen_invented_names_have_as_firm_an_answer() -> None:
    def base(name: str, topic: str, wording: int, sample: int, firm: int) -> list[str]:
        if name == "me":
            return [topic] if topic in ("home", "hobby", "award") else []
        return [f"{name} made up"] if topic == "award" and name in [f"nobody {i}" for i in range(firm)] else []

    for firm, topics in ((1, {"home", "hobby", "award"}), (2, {"home", "hobby"})):
        found = judged(lambda *of, firm=firm: base(*of, firm))  # type: ignore[misc]
        assert {one.topic for one in found.known} == topics


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_of_all_names_at_most_one_is_known_whatever_the_base_says(data: st.DataObject) -> None:
    replies = st.lists(st.frozensets(st.sampled_from("abc"), max_size=2), min_size=4, max_size=4)
    names = [
        {topic: [Told(i, keys) for i, keys in enumerate(data.draw(replies))] for topic in TOPICS[:3]} for _ in range(9)
    ]
    known = [bool(decide(one, [other for other in names if other is not one]).known) for one in names]
    assert sum(known) <= 1


def test_confidence_is_newcombes_interval_of_a_difference() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II (a): 56/70 and 48/80, method 10, lower end 0.0524.
    assert abs(beyond(56 / 70, wilson(56 / 70, 70), 48 / 80, 80) - 0.0524) < 5e-5
