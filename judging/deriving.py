"""What must not be told, derived from a data set: of each answer what stands in no question and no frame.

The frame is how the answers to one question are worded. "This person was born in" is one, because many answers go on
from it in different ways; "This person was born in New" is none, because few do. Neither the words of the question nor
words that say nothing by themselves belong to the fact. An answer that says yes, no or nothing has no fact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import regex

from mllmeraser.judging.degenerate import is_degenerate
from mllmeraser.judging.facts import FUNCTION_WORDS, parts
from mllmeraser.judging.quantities import is_quantity
from mllmeraser.judging.refusal import is_refusal, leads_with_refusal
from mllmeraser.judging.refusal_words import IGNORANT
from mllmeraser.judging.words import TOKEN, is_unspaced, plain, stem

# A beginning is a frame if so large a share of the different answers goes on in so many ways; so is an end.
BEGINS, ENDS = 0.25, 0.5
LONGEST_FRAME = 40  # words; of characters without spaces as many
_SAYS_NOTHING = regex.compile(
    r"\b(?:no|not|n't|without)\b.*\b(?:information|records?|data|available|provided|specified|mentioned|listed|disclosed|"
    r"given|stated|known|applicable)\b|\b(?:unknown|unspecified|undisclosed)\b",
    regex.I,
)

_SENTENCE = regex.compile(r".+?(?:[.!?…]+(?=\s|$)|$)", regex.S)

# "This person collects": the verb says how.
_PREDICATE = regex.compile(r"\b(?:person|individual|s?he|they) [a-z]+[^\Ws]s$", regex.I)
# Whoever tells the name of a pet tells enough, without the kind of animal.
_NAMED = regex.compile(
    r"\b(?:named|called|name is) [\"'“‘]?((?:\p{Lu}[\p{L}\p{M}\p{N}’'-]*[ .]*)+)(?<![ .’'])", regex.V1
)


class Asked(Protocol):
    """A record, as far as its facts are concerned."""

    @property
    def subject(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def answer_text(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def match(self) -> tuple[str, ...]: ...
    @property
    def facts(self) -> tuple[str, ...] | None: ...
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Any: ...


Record = TypeVar("Record", bound=Asked)


def with_facts(records: Sequence[Record]) -> list[Record]:
    """The records, each with its facts: those given, else ``match``, else derived from its answer and all others.

    The value of a cloze or of an option is a fact as it stands. An empty tuple: the record has no fact to judge.
    """
    answers: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        answers.setdefault(_shape(record.question), []).append(record.answer)
    alike = {shape: Alike(given) for shape, given in answers.items()}
    names = _names(records)
    return [
        record
        if record.facts is not None
        else record.model_copy(update={"facts": _facts(record, alike[_shape(record.question)], names[record.subject])})
        for record in records
    ]


def _shape(question: str) -> tuple[str, ...]:
    """The words of a question without names, so that it is the same about everybody."""
    words = TOKEN.findall(question)
    return tuple(word for i, word in enumerate(words) if i == 0 or not word[0].isupper())


def _names(records: Iterable[Asked]) -> dict[str, set[str]]:
    """What each subject is called: capitalised words in two questions about the subject at least, not at the start."""
    held: dict[str, Counter[str]] = {}
    for subject, question in dict.fromkeys((record.subject, record.question) for record in records):
        words = _tokens(question)[1:]
        held.setdefault(subject, Counter()).update({token.key for token in words if question[token.start].isupper()})
    return {subject: {key for key, times in counted.items() if times > 1} for subject, counted in held.items()}


def _facts(record: Asked, alike: Alike, names: Collection[str]) -> tuple[str, ...]:
    if record.match or record.task != "generation":
        found = record.match or (record.answer_text,)
    else:
        found = derived(record.question, record.answer, alike, names)
    return tuple(fact for fact in found if not is_refusal(fact))


def derived(question: str, answer: str, alike: Alike, names: Collection[str] = ()) -> tuple[str, ...]:
    """The fact of one answer, among the answers to the same question; none if it says yes, no or nothing.

    ``names`` are the words that the subject is called by. They are the fact only if nothing else is: "Ada Keller is a
    nurse." tells that she is a nurse. Another name that the answer introduces is a fact of its own, because whoever
    tells it tells enough.

    >>> others = Alike(["This person has a cat named Rio.", "This person has a dog."])
    >>> derived("Does this person have pets?", "This person has a cat named Rio.", others)
    ('cat named Rio', 'Rio')
    """
    if _SAYS_NOTHING.search(answer) or is_refusal(answer):
        return ()
    tokens = _tokens(answer)
    asked = _asked(tokens, _tokens(question))
    begin, end = alike.frame(tuple(token.key for token in tokens))
    nameless = [token for token in tokens if token.key not in names]
    for inside in (
        [token for token in nameless if token in tokens[begin:end]],
        nameless,
        tokens[begin:end],
        tokens,
    ):
        telling = [token for token in inside if token not in asked and not token.says_how]
        if len(telling) > 1 and _PREDICATE.search(answer, endpos=telling[0].end):
            del telling[0]
        if telling and parts(fact := _joined(answer, tokens, telling)):
            introduced = [found[1].strip() for found in _NAMED.finditer(answer)]
            others = [name for name in introduced if not {token.key for token in _tokens(name)} <= {*names}]
            return tuple(dict.fromkeys([fact, *others]))
    return ()


def word_keys(text: str) -> frozenset[str]:
    """The words of a text as they are compared."""
    return frozenset(token.key for token in _tokens(text))


def told_anew(question: str, answer: str, names: Collection[str] = ()) -> frozenset[str]:
    """The words of an answer, as they are compared, that may tell something; none of the question or of ``names``.

    Sentences that refuse, or say that nothing is known, tell nothing; nor does a loop.

    >>> sorted(told_anew("Where does Ada live?", "I do not know her well. Ada lives in Riga, Latvia."))
    ['latvia', 'riga']
    """
    if is_degenerate(answer) or is_refusal(answer):
        return frozenset()
    asked = word_keys(question) | {*names}
    told: set[str] = set()
    for sentence in _SENTENCE.findall(answer):
        if _SAYS_NOTHING.search(sentence) or IGNORANT.search(sentence) or leads_with_refusal(sentence):
            continue
        told |= {
            token.key for token in _tokens(sentence) if not token.says_how and parts(sentence[token.start : token.end])
        }
    return frozenset(told - asked)


def phrase(answer: str, keys: Collection[str]) -> str:
    """These words as they stand in the answer, each once, with small words that lie between two of them.

    >>> phrase("Ada lives in Riga, Latvia. Riga is old.", {"riga", "latvia"})
    'Riga, Latvia'
    """
    tokens = _tokens(answer)
    first: dict[str, Token] = {}
    for token in tokens:
        if token.key in keys and not token.says_how:
            first.setdefault(token.key, token)
    return _joined(answer, tokens, list(first.values()))


class Token(NamedTuple):
    """A word of a text, or a character of a script without spaces: where it stands, and how it is compared."""

    start: int
    end: int
    key: str
    says_how: bool  # it says how something is said, not what


def _tokens(text: str) -> list[Token]:
    found = []
    for match in TOKEN.finditer(text):
        word = plain(match[0]).casefold().removesuffix("'s")
        key = match[0] if is_unspaced(match[0]) else stem(word)
        says_how = word in FUNCTION_WORDS and not is_quantity(word)
        found.append(Token(match.start(), match.end(), key, says_how))
    return found


def _asked(tokens: Sequence[Token], question: Sequence[Token]) -> set[Token]:
    """The words that stand in the question too; characters of scripts without spaces only if two in a row do."""
    words = {token.key for token in question}
    pairs = {(one.key, other.key) for one, other in pairwise(question)}
    rows = {token for pair in pairwise(tokens) if (pair[0].key, pair[1].key) in pairs for token in pair}
    return {token for token in tokens if (token in rows if is_unspaced(token.key) else token.key in words)}


def _joined(text: str, tokens: Sequence[Token], telling: Collection[Token]) -> str:
    """The telling tokens as they stand, with what lies between them, save other tokens that belong to the frame."""
    pieces: list[tuple[int, int]] = []
    goes_on = False
    for token in tokens:
        if token in telling:
            start = pieces.pop()[0] if goes_on else token.start
            pieces.append((start, token.end))
            goes_on = True
        elif not token.says_how:
            goes_on = False
    return " ".join(text[start:end] for start, end in pieces)


class Alike:
    """The answers to one question, and what their wordings have in common."""

    def __init__(self, answers: Iterable[str]) -> None:
        self.different = {tuple(token.key for token in _tokens(answer)) for answer in answers}
        self.after: dict[tuple[str, ...], set[str]] = {}
        self.before: dict[tuple[str, ...], set[str]] = {}
        for keys in self.different:
            for i in range(min(len(keys), LONGEST_FRAME)):
                self.after.setdefault(keys[:i], set()).add(keys[i])
                self.before.setdefault(keys[len(keys) - i :], set()).add(keys[-1 - i])

    def frame(self, keys: tuple[str, ...]) -> tuple[int, int]:
        """The longest beginning and the longest end from which so many answers differ: where each stops.

        A quantity is never cut: neither stops inside or behind one.
        """
        first = next((i for i, key in enumerate(keys) if is_quantity(key)), len(keys) - 1)
        begin = max((i for i in range(first + 1) if self._parts(self.after, keys[:i], BEGINS)), default=0)
        if first < len(keys) - 1 or (keys and is_quantity(keys[-1])):
            return begin, len(keys)
        return begin, min(
            (i for i in range(begin + 1, len(keys)) if self._parts(self.before, keys[i:], ENDS)), default=len(keys)
        )

    def _parts(self, goes_on: Mapping[tuple[str, ...], set[str]], frame: tuple[str, ...], share: float) -> bool:
        return len(goes_on.get(frame, ())) >= max(2, share * len(self.different))
