"""A question by name, with a picture beside it: the picture of that person, or an empty one.

The same fact through the other modality; the opposite way, a picture's question by name, needs the name, which records
do not state: sets that hold both forms show it in their rows by ``modality`` (UMU-Bench's modality gap).
"""

from __future__ import annotations

from PIL import Image

from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene, asked_in_other_ways


def own_picture(scene: Scene) -> list[Reading]:
    """Questions without a picture get one of their subject's, the first there is in the set."""
    pictures = {sample.subject: sample.image for sample in reversed(scene.samples) if sample.image}
    return asked_in_other_ways(
        scene,
        lambda sample, turn: (
            [turn._replace(image=pictures[sample.subject])] if not turn.image and sample.subject in pictures else []
        ),
    )


def empty_picture(scene: Scene) -> list[Reading]:
    """Questions without a picture get a grey one, 336 pixels square."""
    grey = Image.new("RGB", (336, 336), (128, 128, 128))
    return asked_in_other_ways(scene, lambda sample, turn: [] if turn.image else [turn._replace(image=grey)])


OTHER_MODALITY = [
    Attack("own-picture", "A question by name, with a picture of that person.", own_picture),
    Attack("empty-picture", "A question by name, with a grey picture.", empty_picture),
]
