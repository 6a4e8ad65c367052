"""Run models on sets: every record is answered once by every model, freely and, in multiple choice, by likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mllmeraser.errors import InputError
from mllmeraser.evaluation.choices import expected_replies
from mllmeraser.evaluation.inputs import NamedModel, NamedSet, refuse_repeated
from mllmeraser.evaluation.items import Reply, score
from mllmeraser.evaluation.protocols import PROTOCOLS, Protocol
from mllmeraser.evaluation.results import Results
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import greedy_reply_ids, option_log_likelihoods
from mllmeraser.steering.samples import Sample

# MLLMU-Bench's limit (arXiv 2410.22108).
MAX_NEW_TOKENS = 50


def evaluate(
    models: Sequence[NamedModel],
    sets: Sequence[NamedSet],
    *,
    protocol: Protocol = PROTOCOLS["mllmeraser"],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 64,
    seed: int = 0,
) -> Results:
    """Every model on every set. Greedy decoding; models are loaded one after another.

    Args:
        models: the first is the base that ``identical_to_base`` compares with.
        sets: named records.
        protocol: the wording of records that carry no ``prompt`` of their own.
        max_new_tokens: the limit of a free reply.
        batch_size: prompts a forward pass.
        seed: of the bootstrap intervals, the only thing random here.

    Raises:
        InputError: nothing to run or to run on, a name given twice, or what loading and encoding raise.
    """
    _check(models, sets)
    samples = [sample for named in sets for sample in named.samples]
    replies: dict[str, list[Reply]] = {}
    for named_model in models:
        # No variable keeps the checkpoint: the last one must be gone before the next is loaded.
        replies[named_model.name] = answer(
            named_model.load(), samples, protocol, named_model.name, max_new_tokens, batch_size
        )
    return score_replies(replies, sets, protocol=protocol, seed=seed)


def answer(
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    protocol: Protocol,
    name: str = "model",
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 64,
) -> list[Reply]:
    """The replies of one model, in the order of the samples. ``name`` stands in the progress bar."""
    prompts = [protocol.wording(sample) for sample in samples]
    said = greedy_reply_ids(
        checkpoint, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=f"{name}: replies"
    )
    texts = checkpoint.processor.tokenizer.batch_decode(said, skip_special_tokens=True)
    asked = [i for i, sample in enumerate(samples) if sample.task == "classification"]
    options = [list(expected_replies(prompts[i].text, samples[i].options or {}).values()) for i in asked]
    scores: dict[int, tuple[float, ...]] = {}
    if asked:
        found = option_log_likelihoods(
            checkpoint, [prompts[i] for i in asked], options, batch_size=batch_size, progress=f"{name}: options"
        )
        scores = {i: tuple(values) for i, values in zip(asked, found, strict=True)}
    return [
        Reply(text.strip(), tuple(ids.tolist()), scores.get(i, ()))
        for i, (text, ids) in enumerate(zip(texts, said, strict=True))
    ]


def score_replies(
    replies: Mapping[str, Sequence[Reply]],
    sets: Sequence[NamedSet],
    *,
    protocol: Protocol = PROTOCOLS["mllmeraser"],
    seed: int = 0,
) -> Results:
    """Score replies by model, each in the order of the sets' records one after another; the first model is the base.

    Raises:
        InputError: a model has more or fewer replies than there are records.
    """
    places = [(named.name, i, sample) for named in sets for i, sample in enumerate(named.samples)]
    for model, said in replies.items():
        if len(said) != len(places):
            raise InputError(f"model {model}: {len(said)} replies to {len(places)} records")
    base = next(iter(replies.values()))
    items = [
        score(sample, protocol.wording(sample).text, reply, before, model=model, set_name=set_name, index=index)
        for model, said in replies.items()
        for (set_name, index, sample), reply, before in zip(places, said, base, strict=True)
    ]
    return Results(tuple(replies), tuple(named.name for named in sets), protocol.name, tuple(items), seed)


def _check(models: Sequence[NamedModel], sets: Sequence[NamedSet]) -> None:
    if not models:
        raise InputError("no model to evaluate; give a directory or a Hub id")
    if not sets:
        raise InputError("nothing to evaluate on; give at least one --data NAME=FILE.jsonl")
    refuse_repeated("model", [model.name for model in models])
    refuse_repeated("set", [named.name for named in sets])
    for named in sets:
        if not named.samples:
            raise InputError(f"set {named.name}: holds no record")
