"""What a linear map reads from the hidden states, block by block (Alain & Bengio, arXiv 1610.01644).

The attacker has the model and knows the answers about other people. With h_l the output of block l at the last prompt
token, standardised, and Y the one-hot answers of those people, the map is the ridge solution

    W = (HᵀH + α I)⁻¹ Hᵀ Y,   α = 0.01 · tr(HᵀH) / d,

and a record counts as correct if arg max of Wᵀh is its answer. Nobody asked about was seen in the fit, so the map can
read only what the states say about the answer, not who is who. Records whose answer nobody else has are left out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene, Verdict, zero_shot
from mllmeraser.inference.loops import words
from mllmeraser.steering.activations import decoder_layers, last_prompt_states
from mllmeraser.steering.samples import Sample

MOST = 1000  # records of other people
RIDGE = 0.01


def linear_probe(scene: Scene) -> list[Reading]:
    """One reading a block.

    Raises:
        NotApplicableError: fewer than two answers, or less than half of the records, occur with other people.
    """
    fit = random.Random(f"probe {scene.seed}").sample(list(scene.others), min(MOST, len(scene.others)))
    classes = sorted({_answer(sample) for sample in fit})
    tested = [row for row, sample in enumerate(scene.samples) if _answer(sample) in classes]
    if len(classes) < 2 or 2 * len(tested) < len(scene.samples):
        raise NotApplicableError(
            "less than half of the answers occur with people of the other sets; give --data of more people"
        )
    layers = range(len(decoder_layers(scene.checkpoint)))
    turns = [zero_shot(scene.protocol, sample) for sample in [*fit, *(scene.samples[row] for row in tested)]]
    states = last_prompt_states(scene.checkpoint, turns, layers, batch_size=scene.batch_size)
    labels = torch.tensor([classes.index(_answer(sample)) for sample in fit])
    right = [classes.index(_answer(scene.samples[row])) for row in tested]
    chance = Counter(right).most_common(1)[0][1] / len(right)
    readings = []
    for layer in layers:
        said = fit_and_read(states[layer][: len(fit)], labels, states[layer][len(fit) :])
        verdicts: list[Verdict | None] = [None] * len(scene.samples)
        for row, found, wanted in zip(tested, said, right, strict=True):
            verdicts[row] = Verdict(found == wanted, False)
        readings.append(Reading(verdicts, chance, layer))
    return readings


def fit_and_read(states: Tensor, labels: Tensor, asked: Tensor) -> Sequence[int]:
    """Fit on states (n, d) with labels (n,), and read the label of each of ``asked`` (m, d)."""
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


def _answer(sample: Sample) -> str:
    return " ".join(words(sample.accepted[0]))


LINEAR_PROBE = Attack(
    "linear-probe",
    "A linear map from hidden states to the answer, fitted on other people, at every block.",
    linear_probe,
    reads_replies=False,
)
