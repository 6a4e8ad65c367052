"""Which option the model itself finds likeliest, whatever it would say: the knowledge that a refusal does not touch.

arg max_i Σ_π log p_π(option_i | prompt), over the rotations π of the options where the protocol words the record (a
position's favour cancels out), else over the prompt as it is (Zheng et al., arXiv 2309.03882).
"""

from __future__ import annotations

from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene, Verdict, zero_shot
from mllmeraser.evaluation.choices import expected_replies, likeliest
from mllmeraser.inference.replies import option_log_likelihoods
from mllmeraser.steering.samples import Sample


def option_logit(scene: Scene) -> list[Reading]:
    """Multiple-choice records only.

    Raises:
        NotApplicableError: there are none.
    """
    asked = [(row, turned) for row, sample in enumerate(scene.samples) for turned in _rotations(sample)]
    if not asked:
        raise NotApplicableError("no record has options to choose from")
    prompts = [zero_shot(scene.protocol, sample) for _, sample in asked]
    options = [
        list(expected_replies(prompt.text, sample.options or {}).values())
        for prompt, (_, sample) in zip(prompts, asked, strict=True)
    ]
    found = option_log_likelihoods(scene.checkpoint, prompts, options, batch_size=scene.batch_size)
    sums: dict[int, dict[str, float]] = {}
    for (row, sample), scores in zip(asked, found, strict=True):
        total = sums.setdefault(row, {})
        for text, score in zip((sample.options or {}).values(), scores, strict=True):
            total[text] = total.get(text, 0.0) + score
    verdicts: list[Verdict | None] = [None] * len(scene.samples)
    for row, total in sums.items():
        best = likeliest(list(total.values()))
        verdicts[row] = Verdict(best is not None and list(total)[best] == scene.samples[row].answer_text, False)
    chance = sum(1 / len(total) for total in sums.values()) / len(sums)
    return [Reading(verdicts, chance)]


def _rotations(sample: Sample) -> list[Sample]:
    """The record with its options turned round, as often as there are options; once if its prompt is fixed."""
    if sample.task != "classification" or not sample.options:
        return []
    if sample.prompt is not None:
        return [sample]
    keys, texts = list(sample.options), list(sample.options.values())
    turned = [dict(zip(keys, texts[by:] + texts[:by], strict=True)) for by in range(len(keys))]
    return [sample.model_copy(update={"options": options, "answer": sample.answer_text}) for options in turned]


OPTION_LOGIT = Attack(
    "option-logit", "The option the model finds likeliest, over all their orders.", option_logit, reads_replies=False
)
