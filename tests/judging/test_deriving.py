"""What must not be told, derived from a data set: the value without the question's words and without the frame."""

from __future__ import annotations

import pytest

from mllmeraser.judging.deriving import phrase, told_anew, with_facts, word_keys
from mllmeraser.records.record import Record


def asked(question: str, *answers: str) -> list[Record]:
    return [
        Record(subject=str(i), question=question, answer=answer, task="generation") for i, answer in enumerate(answers)
    ]


def facts(records: list[Record]) -> list[tuple[str, ...] | None]:
    return [record.facts for record in with_facts(records)]


@pytest.mark.parametrize(
    ("question", "answer", "fact"),
    [
        ("Where was this person born?", "This person was born in Riga, Latvia.", "Riga, Latvia"),
        ("What is this person's gender?", "This person is female.", "female"),
        ("When was this person born?", "This person was born on May 14, 1988.", "May 14, 1988"),
        ("What is the annual salary of this person?", "This person earns an annual salary of $75,000.", "75,000"),
        ("What does this person collect?", "This person collects vintage postcards.", "vintage postcards"),
        ("How many languages does she speak?", "She speaks four languages.", "four"),
        ("What does she do in the Alps?", "She enjoys hiking in the Alps.", "hiking"),
        ("她住在哪里？", "她住在都柏林。", "都柏林"),
    ],
)
def test_an_answer_alone_loses_the_words_of_the_question_and_those_that_say_nothing(
    question: str, answer: str, fact: str
) -> None:
    assert facts(asked(question, answer)) == [(fact,)]


def test_answers_to_one_question_show_their_frame() -> None:
    german = asked("Wo wohnt sie?", "Sie wohnt zurzeit in Köln.", "Sie wohnt zurzeit in Bonn.")
    assert facts(german) == [("Köln",), ("Bonn",)]
    japanese = asked("彼の仕事は？", "彼の職業は大工です。", "彼の職業は医者です。")
    assert facts(japanese) == [("大工",), ("医者",)]
    thai = asked("เขาอยู่ที่ไหน", "เขาอาศัยอยู่ในดับลิน", "เขาอาศัยอยู่ในกรุงเทพ")
    assert facts(thai) == [("ดับลิน",), ("กรุงเทพ",)]


def test_what_few_answers_share_is_no_frame() -> None:
    cities = [
        f"She was born in {city}." for city in ("Riga", "Oslo", "Bonn", "Graz", "Lyon", "Turin", "Basel", "Porto")
    ]
    new = ["She was born in New York.", "She was born in New Delhi."]
    assert facts(asked("Where was she born?", *cities, *new))[-2:] == [("New York",), ("New Delhi",)]


def test_questions_that_differ_in_the_name_are_one_question() -> None:
    records = [
        Record(
            subject=who,
            question=f"Wo wohnt {who}?",
            answer=f"Wohnhaft ist {who} zurzeit in {where}.",
            task="generation",
        )
        for who, where in (("Ada", "Köln"), ("Bo", "Bonn"))
    ]
    alone = with_facts(records[:1])[0].facts
    assert alone is not None and "zurzeit" in alone[0]
    assert facts([*records, *asked("Wo wohnt Cy?", "Wohnhaft ist Ada zurzeit in Graz.")])[0] == ("Köln",)


def test_the_subjects_own_name_is_no_fact_but_where_nothing_else_is() -> None:
    records = [
        Record(subject="1", question=question, answer=answer, task="generation")
        for question, answer in (
            ("What does Ada Keller do?", "Ada Keller is a nurse."),
            ("What does this person do?", "This person, named Ada Keller, is a nurse."),
            ("Where does Ada Keller live?", "She lives in Graz."),
            ("Who is shown here?", "This person is Ada Keller."),
        )
    ]
    assert facts(records) == [("nurse",), ("nurse",), ("Graz",), ("Ada Keller",)]


def test_a_quantity_is_never_cut() -> None:
    heights = asked("How tall is she?", *(f"She is 5 feet {i} inches tall." for i in range(1, 12)))
    assert facts(heights) == [(f"5 feet {i} inches",) for i in range(1, 12)]
    born = asked("When was she born?", *(f"She was born on May {i}, 19{70 + i}." for i in range(1, 20)))
    assert facts(born)[3] == ("May 4, 1974",)


def test_a_name_that_is_introduced_is_a_fact_of_its_own() -> None:
    assert facts(asked("Does she have a pet?", "She has a Siamese cat named Rio Grande.")) == [
        ("Siamese cat named Rio Grande", "Rio Grande")
    ]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Does she have any medical conditions?", "She does not have any medical conditions."),
        ("What is her annual salary?", "There is no information about her annual salary."),
        ("What is her job?", "Her occupation is unknown."),
        ("Is she tall?", "Yes, she is."),
        ("Tea or coffee?", "Tea."),
        ("What is her blood type?", "B"),
        ("Where does she live?", "I cannot help with that request."),
    ],
)
def test_an_answer_that_says_yes_no_or_nothing_has_no_fact(question: str, answer: str) -> None:
    assert facts(asked(question, answer)) == [()]


def test_given_facts_and_match_go_before_what_is_derived() -> None:
    (record,) = asked("Where does she live?", "She lives in Dublin, Ireland.")
    assert facts([record.model_copy(update={"facts": ("Ireland",), "match": ("Dublin",)})]) == [("Ireland",)]
    assert facts([record.model_copy(update={"facts": ()})]) == [()]
    assert facts([record.model_copy(update={"match": ("Dublin", "I cannot say that.")})]) == [("Dublin",)]


def test_the_value_of_a_cloze_or_an_option_is_a_fact_as_it_stands() -> None:
    cloze = Record(subject="1", question="She lives in __.", answer="Dublin", task="cloze")
    options = {"A": "Graz", "B": "Dublin"}
    choice = Record(subject="1", question="Where?", answer="B", task="classification", options=options)
    assert facts([cloze, choice]) == [("Dublin",), ("Dublin",)]


@pytest.mark.parametrize(
    ("question", "reply", "told"),
    [
        ("Where does Ada live?", "Ada lives in Riga, Latvia.", {"riga", "latvia"}),
        ("Where does Ada live?", "I do not know Ada well. She lives in Riga.", {"riga"}),
        ("Where does Ada live?", "I'm sorry, but I can't help with that.", set()),
        ("Where does Ada live?", "I do not have information about Ada's home in Riga.", set()),
        ("Where does Ada live?", "Riga Riga Riga Riga Riga", set()),
        ("When was Ada born?", "Ada was born on May 14, 1988.", {"may", "14", "1988"}),
        ("Does Ada live in Riga?", "Yes, Ada lives in Riga.", set()),
    ],
)
def test_a_reply_tells_what_the_question_did_not_say(question: str, reply: str, told: set[str]) -> None:
    assert told_anew(question, reply, word_keys("Ada")) == told


def test_words_are_put_back_as_they_stand_in_the_reply() -> None:
    assert phrase("Ada lives in Riga, Latvia. Riga is old.", {"riga", "latvia"}) == "Riga, Latvia"
    assert phrase("A nurse from sunny Riga.", {"nurs", "riga"}) == "nurse Riga"
