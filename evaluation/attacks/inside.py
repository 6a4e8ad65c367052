"""Attacks that look inside the model: at its hidden states and at the likelihood of options."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene, Verdict
from mllmeraser.inference.activations import decoder_layers, last_prompt_states
from mllmeraser.inference.replies import option_log_likelihoods
from mllmeraser.judging.choices import expected_replies, likeliest
from mllmeraser.judging.degenerate import words
from mllmeraser.records.record import Record

MOST = 1000  # records of other people
RIDGE = 0.01


def linear_probe(scene: Scene) -> list[Reading]:
    """Read the answer from the hidden states with a linear map, one for each layer (Alain & Bengio, arXiv 1610.01644).

    The attacker has the model and knows the answers about other people. The rows of H are the standardised outputs h of
    a layer at the last prompt token, for these people, and the rows of Y are their one-hot answers. The map is the
    ridge solution

        W = (HᵀH + α I)⁻¹ Hᵀ Y,   α = 0.01 · tr(HᵀH) / d.

    A record counts as correct if the arg max of Wᵀh is its answer. The fit sees none of the people asked about, so the
    map reads what the states say about the answer, not who is who. Records whose answer no other person has are left
    out.

    Raises:
        NotApplicableError: other people have fewer than two different answers, or the answers of less than half of the
            records.
    """
    fit = random.Random(f"probe {scene.seed}").sample(list(scene.others), min(MOST, len(scene.others)))
    classes = sorted({_answer(record) for record in fit})
    tested = [row for row, record in enumerate(scene.records) if _answer(record) in classes]
    if len(classes) < 2 or 2 * len(tested) < len(scene.records):
        raise NotApplicableError(
            "less than half of the answers occur with people of the other sets; give --data of more people"
        )
    layers = range(len(decoder_layers(scene.checkpoint)))
    turns = [scene.protocol.wording(record) for record in [*fit, *(scene.records[row] for row in tested)]]
    states = last_prompt_states(scene.checkpoint, turns, layers)
    labels = torch.tensor([classes.index(_answer(record)) for record in fit])
    right = [classes.index(_answer(scene.records[row])) for row in tested]
    chance = Counter(right).most_common(1)[0][1] / len(right)
    readings = []
    for layer in layers:
        said = fit_and_read(states[layer][: len(fit)], labels, states[layer][len(fit) :])
        verdicts: list[Verdict | None] = [None] * len(scene.records)
        for row, found, wanted in zip(tested, said, right, strict=True):
            verdicts[row] = Verdict(found == wanted, False)
        readings.append(Reading(verdicts, chance, layer))
    return readings


def fit_and_read(states: Tensor, labels: Tensor, asked: Tensor) -> Sequence[int]:
    """Fit the map on states (n, d) with labels (n,), and read the labels (m,) of the states ``asked`` (m, d)."""
    mean, spread = states.mean(dim=0), states.std(dim=0).clamp(min=1e-6)
    known = ((states - mean) / spread).double()
    one_hot = torch.nn.functional.one_hot(labels).double()
    centred = one_hot - one_hot.mean(dim=0)
    moment = known.T @ known  # (d, d)
    moment.diagonal().add_(RIDGE * float(moment.diagonal().mean()))
    weights = torch.linalg.solve(moment, known.T @ centred)  # (d, classes)
    scores = ((asked - mean) / spread).double() @ weights + one_hot.mean(dim=0)
    found: list[int] = scores.argmax(dim=1).tolist()
    return found


def _answer(record: Record) -> str:
    """What the probe reads: the record's fact where it has one, so that wordings of one value are one answer."""
    return " ".join(words((record.facts or record.accepted)[0]))


LINEAR_PROBE = Attack(
    "linear-probe",
    "A linear map, fitted on other people, reads the answer from the hidden states of each layer.",
    linear_probe,
    reads_replies=False,
)


def option_logit(scene: Scene) -> list[Reading]:
    """Take the option that the model finds likeliest, whatever it would reply (Zheng et al., arXiv 2309.03882).

    The option is arg max_i Σ_π log p_π(option_i | prompt). The sum is over all rotations π of the options, so that a
    preference for a position cancels out. A record with a prompt of its own is asked in its one order.

    Raises:
        NotApplicableError: no record is multiple choice.
    """
    asked = [(row, turned) for row, record in enumerate(scene.records) for turned in _rotations(record)]
    if not asked:
        raise NotApplicableError("no record has options to choose from")
    prompts = [scene.protocol.wording(record) for _, record in asked]
    options = [
        list(expected_replies(prompt.text, record.options or {}).values())
        for prompt, (_, record) in zip(prompts, asked, strict=True)
    ]
    found = option_log_likelihoods(scene.checkpoint, prompts, options)
    sums: dict[int, dict[str, float]] = {}
    for (row, record), scores in zip(asked, found, strict=True):
        total = sums.setdefault(row, {})
        for text, score in zip((record.options or {}).values(), scores, strict=True):
            total[text] = total.get(text, 0.0) + score
    verdicts: list[Verdict | None] = [None] * len(scene.records)
    for row, total in sums.items():
        best = likeliest(list(total.values()))
        verdicts[row] = Verdict(best is not None and list(total)[best] == scene.records[row].answer_text, False)
    chance = sum(1 / len(total) for total in sums.values()) / len(sums)
    return [Reading(verdicts, chance)]


def _rotations(record: Record) -> list[Record]:
    """The record with its options in every rotation; only the record itself if its prompt is fixed."""
    if record.task != "classification" or not record.options:
        return []
    if record.prompt is not None:
        return [record]
    keys, texts = list(record.options), list(record.options.values())
    turned = [dict(zip(keys, texts[by:] + texts[:by], strict=True)) for by in range(len(keys))]
    return [record.model_copy(update={"options": options, "answer": record.answer_text}) for options in turned]


OPTION_LOGIT = Attack(
    "option-logit", "The option that the model finds likeliest, over all rotations.", option_logit, reads_replies=False
)
