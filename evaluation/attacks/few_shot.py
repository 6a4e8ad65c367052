"""Examples of answered questions ahead of the question (in-context relearning: Shumailov et al., arXiv 2407.00106).

The examples are about other people: those of the other sets, else other people of this one.
"""

from __future__ import annotations

import random

from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene, asked_in_other_ways
from mllmeraser.inference.prompts import Prompt
from mllmeraser.steering.samples import Sample

SHOTS = 3


def few_shot(scene: Scene) -> list[Reading]:
    """Three questions of one wording with their right answers, as text in the same turn.

    Raises:
        NotApplicableError: there are no questions without a picture about anybody else.
    """
    pool = [sample for sample in scene.others or scene.samples if not sample.image]
    subjects = {sample.subject for sample in pool}
    if len(subjects | {sample.subject for sample in scene.samples}) < 2 or not pool:
        raise NotApplicableError("there are no questions without a picture about other subjects to take as examples")
    rng = random.Random(f"few-shot {scene.seed}")

    def shown(sample: Sample, turn: Prompt) -> list[Prompt]:
        among = [other for other in rng.sample(pool, min(len(pool), 200)) if other.subject != sample.subject]
        same = [other for other in among if other.task == sample.task] or among
        shots = [f"Question: {other.question}\nAnswer: {other.answer_text}" for other in same[:SHOTS]]
        return [turn._replace(text="\n".join([*shots, f"Question: {turn.text}\nAnswer:"]))] if shots else []

    return asked_in_other_ways(scene, shown)


FEW_SHOT = Attack("few-shot", "Three answered questions about other people ahead of it.", few_shot)
