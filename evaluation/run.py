"""Runs models on sets: every model answers every record once, freely and by likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmeraser.errors import InputError
from mllmeraser.evaluation.answering import answer_by_batch
from mllmeraser.evaluation.cross_check import cross_check
from mllmeraser.evaluation.inputs import NamedModel, NamedSet, refuse_repeated
from mllmeraser.evaluation.items import Item, Reply, candidates, score
from mllmeraser.evaluation.journal import Journal, key_of
from mllmeraser.evaluation.prepared import NamedAnswers
from mllmeraser.evaluation.protocols import PROTOCOLS, Protocol, Question
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.tiers import Tier, tier_of
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.judging.answers import Judge
from mllmeraser.judging.results_file import CrossCheck
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record


@dataclass(frozen=True)
class Place:
    """A question and the set it stands in."""

    set: str
    question: Question


def evaluate_models(
    models: Sequence[NamedModel | NamedAnswers],
    sets: Sequence[NamedSet],
    *,
    protocol: Protocol = PROTOCOLS["mllmeraser"],
    max_new_tokens: int | None = None,
    seed: int = 0,
    reference: str | None = None,
    examples: Sequence[Record] = (),
    fit: Sequence[Record] = (),
    tier: Tier | None = None,
    items: Path | None = None,
    judge: Judge = "facts",
    again: int = 0,
) -> Results:
    """Ask every model every record, with greedy decoding. Models are loaded one after another.

    Args:
        models: models, or answers given elsewhere. The first is the base; ``identical_to_base`` compares with it.
        sets: records by the name of their set.
        protocol: words the questions of records that carry no ``prompt`` of their own.
        max_new_tokens: the limit of a free reply; by default the protocol's.
        seed: of the bootstrap intervals and of the worked examples.
        reference: the name of the model that never saw the forgotten; the summary compares the others with it.
        examples: records that a protocol takes its worked examples from.
        fit: records that the models were fitted on, forgotten and kept.
        tier: the leakage tier asked for (:mod:`mllmeraser.evaluation.tiers`).
        items: a file that keeps every item; replies that an earlier run left in it are not asked for again.
        judge: says whether a reply tells the answer (:mod:`mllmeraser.judging.answers`).
        again: so many records of each set are asked a second time, by other means
            (:mod:`mllmeraser.evaluation.cross_check`).

    Raises:
        InputError: there is no model or no record, a name is given twice or unknown, the tier forbids records that were
            fitted on, or a model or prompt cannot be loaded or encoded.
    """
    _check(models, sets, reference)
    tier = tier_of(sets, fit, tier, protocol)
    places = _places(sets, protocol, examples, seed)
    journal = Journal.open(items)
    scored: list[Item] = []
    checks: list[CrossCheck] = []
    for named in models:
        # No variable may keep a checkpoint: its memory must be free before the next is loaded.
        base = scored[: len(places)]
        if isinstance(named, NamedAnswers):
            scored += _look_up(named, places, base, judge)
            continue
        checkpoint = named.load()
        prompts = [protocol.prompt(place.question, checkpoint.model_type) for place in places]
        limits = [max_new_tokens or protocol.limit(place.question.record) for place in places]
        items_of = _ask(named, checkpoint, places, prompts, limits, journal, base, judge)
        scored += items_of
        if again:
            asked = list(zip(prompts, items_of, strict=True))
            checks += cross_check(checkpoint, asked, again, max(limits), seed)
        del checkpoint
    journal.finish(scored)
    names = [named.name for named in models]
    return _results(names, sets, protocol, scored, seed, reference, tier, judge, tuple(checks))


def score_replies(
    replies: Mapping[str, Sequence[Reply]],
    sets: Sequence[NamedSet],
    *,
    protocol: Protocol = PROTOCOLS["mllmeraser"],
    seed: int = 0,
    reference: str | None = None,
    judge: Judge = "facts",
) -> Results:
    """Score replies that were given already, by model. The first model is the base.

    A model's replies follow the order of the sets, and within a set the order of its records.

    Raises:
        InputError: a model has more or fewer replies than there are records.
    """
    places = _places(sets, protocol, (), seed)
    for model, said in replies.items():
        if len(said) != len(places):
            raise InputError(f"model {model}: {len(said)} replies to {len(places)} records")
    base = next(iter(replies.values()))
    items = [
        _scored(model, place, reply, before.ids, judge)
        for model, said in replies.items()
        for place, reply, before in zip(places, said, base, strict=True)
    ]
    return _results(list(replies), sets, protocol, items, seed, reference, None, judge)


def _ask(
    named: NamedModel,
    checkpoint: Checkpoint,
    places: Sequence[Place],
    prompts: Sequence[Prompt],
    limits: Sequence[int],
    journal: Journal,
    base: Sequence[Item],
    judge: Judge,
) -> list[Item]:
    """The items of one model, in the order of ``places``. ``base`` holds the base's items, none if this is the base."""
    questions = [place.question for place in places]
    keys: list[str | None] = [None] * len(places)
    if journal.path is not None and named.digest is not None:
        digest = named.digest()
        keys = [
            key_of(digest, prompt, candidates(question.record, question.turn), limit)
            for question, prompt, limit in zip(questions, prompts, limits, strict=True)
        ]

    def scored(i: int, reply: Reply) -> Item:
        return _scored(named.name, places[i], reply, base[i].reply_ids if base else reply.ids, judge, keys[i])

    items = {i: scored(i, journal.known[key]) for i, key in enumerate(keys) if key in journal.known}
    missing = [i for i in range(len(places)) if i not in items]
    answers = answer_by_batch(
        checkpoint,
        [questions[i] for i in missing],
        [prompts[i] for i in missing],
        [limits[i] for i in missing],
        progress=named.name,
    )
    for rows, replies in answers:
        new = {missing[row]: scored(missing[row], reply) for row, reply in zip(rows, replies, strict=True)}
        journal.add(new.values())
        items |= new
    return [items[i] for i in range(len(places))]


def _look_up(named: NamedAnswers, places: Sequence[Place], base: Sequence[Item], judge: Judge) -> list[Item]:
    """The items of answers given elsewhere, in the order of ``places``."""
    replies = [named.reply(place.set, place.question.index) for place in places]
    return [
        _scored(named.name, place, reply, base[i].reply_ids if base else reply.ids, judge)
        for i, (place, reply) in enumerate(zip(places, replies, strict=True))
    ]


def _places(sets: Sequence[NamedSet], protocol: Protocol, examples: Sequence[Record], seed: int) -> list[Place]:
    return [
        Place(named.name, question)
        for named in sets
        for question in protocol.questions(named.records, examples, f"{seed} {named.name}")
    ]


def _scored(
    model: str, place: Place, reply: Reply, base_ids: tuple[int, ...], judge: Judge, key: str | None = None
) -> Item:
    question = place.question
    return score(
        question.record,
        question.turn,
        reply,
        base_ids,
        model=model,
        set_name=place.set,
        index=question.index,
        key=key,
        judge=judge,
    )


def _results(
    models: Sequence[str],
    sets: Sequence[NamedSet],
    protocol: Protocol,
    items: Sequence[Item],
    seed: int,
    reference: str | None,
    tier: Tier | None,
    judge: Judge,
    cross_checks: tuple[CrossCheck, ...] = (),
) -> Results:
    return Results(
        models=tuple(models),
        sets=tuple(named.name for named in sets),
        protocol=protocol.name,
        items=tuple(items),
        seed=seed,
        forgotten=tuple(named.name for named in sets if named.forgotten),
        reference=reference,
        tier=tier,
        judge=judge,
        cross_checks=cross_checks,
    )


def _check(models: Sequence[NamedModel | NamedAnswers], sets: Sequence[NamedSet], reference: str | None) -> None:
    if not models:
        raise InputError("no model to evaluate; give a directory or a Hub id")
    if not sets:
        raise InputError("nothing to evaluate on; give at least one --data NAME=FILE.jsonl")
    refuse_repeated("model", [model.name for model in models])
    refuse_repeated("set", [named.name for named in sets])
    for named in sets:
        if not named.records:
            raise InputError(f"set {named.name}: holds no record")
    names = [model.name for model in models]
    if reference is not None and reference not in names:
        raise InputError(f"--reference {reference}: not one of the models {', '.join(names)}")
