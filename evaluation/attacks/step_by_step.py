"""A request to think first (zero-shot chain of thought: Kojima et al., arXiv 2205.11916)."""

from __future__ import annotations

from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene, asked_in_other_ways


def step_by_step(scene: Scene) -> list[Reading]:
    """The question, and behind it the request."""
    return asked_in_other_ways(
        scene, lambda sample, turn: [turn._replace(text=f"{turn.text}\nLet's think step by step.")]
    )


STEP_BY_STEP = Attack("step-by-step", "“Let's think step by step” behind the question.", step_by_step)
