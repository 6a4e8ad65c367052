"""The recipe of each baseline. Its defaults are the published values; ``--set KEY=VALUE`` changes one.

Where the authors print the command line they ran, its values are taken. The defaults of the public scripts (lr 5e-4, 5
epochs) are further from what was run. Published values are for 7B models; a small model needs its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmeraser.errors import InputError

Objective = Literal["ga", "ga-diff", "kl-min", "npo", "npo-public"]
Order = Literal["forget-only", "sequential", "interleaved", "joint"]


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Recipe):
    """A low-rank adapter on every linear layer of the language model, merged afterwards."""

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05


class Training(_Recipe):
    """Training with AdamW, without weight decay or warm-up. The learning rate falls linearly to 0.

    ``epochs`` may be a fraction of a pass. If ``max_grad_norm`` is null, gradients are not clipped.
    """

    objective: Objective
    order: Order
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    epochs: Annotated[float, Field(gt=0)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 4
    max_grad_norm: Annotated[float | None, Field(gt=0)] = None
    lora: Lora | None = Lora()


class Preference(Training):
    """NPO, with its β."""

    beta: Annotated[float, Field(gt=0)] = 0.1


class Salient(Training):
    """MMUnlearner: the forget steps change only weights whose Fisher ratio reaches the threshold."""

    saliency_threshold: Annotated[float, Field(ge=0)] = 1


class Pruning(_Recipe):
    """MANU: zero ``percent`` of the MLP neurons that a modality reaches."""

    percent: Annotated[float, Field(gt=0, le=100)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 16


class Vector(_Recipe):
    """A steering bundle with one part replaced. If ``strength`` is null, it keeps the calibrated strength."""

    strength: float | None = None


class Words(_Recipe):
    """A sentence before every conversation; the names replace ``{names}``."""

    text: str = (
        "Never answer questions about the following people, whether they are named or shown in a picture; refuse "
        "instead: {names}."
    )


Recipe = Training | Pruning | Vector | Words

RECIPES: dict[str, Recipe] = {
    "ga": Training(objective="ga", order="forget-only"),
    "ga-diff-sequential": Training(objective="ga-diff", order="sequential"),
    "ga-diff-interleaved": Training(objective="ga-diff", order="interleaved"),
    "ga-diff-joint": Training(objective="ga-diff", order="joint"),
    "kl-min": Training(objective="kl-min", order="joint"),
    "npo": Preference(objective="npo", order="forget-only"),
    "npo-public": Preference(objective="npo-public", order="forget-only", beta=0.9),
    "mmunlearner": Salient(objective="ga-diff", order="interleaved", max_grad_norm=1, lora=None),
    "manu": Pruning(),
    "system-prompt": Words(),
    "constant-vector": Vector(),
    "random-vector": Vector(),
    "conditional-steering": Vector(),
}
_THE_METHOD_ITSELF = ("objective", "order", "lora")
# Filters read prompts or replies and change no checkpoint; benchmarks/baselines.py measures them.
FILTERS = ("input-filter", "input-filter-pictures", "output-filter")


def recipe_of(name: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe of a baseline, with the values that ``KEY=VALUE`` settings change.

    Raises:
        InputError: no baseline or key has this name, or a value is not valid.
    """
    if name in FILTERS:
        raise InputError(f"{name}: a filter stands around a model and is no checkpoint; see docs/baselines.md")
    if name not in RECIPES:
        raise InputError(f"{name}: not a baseline; one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    keys = [key for key in type(recipe).model_fields if key not in _THE_METHOD_ITSELF]
    given: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in keys:
            raise InputError(f"--set {setting}: give KEY=VALUE with one of {', '.join(keys)}")
        given[key] = value
    try:
        return type(recipe).model_validate({**recipe.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--set {first['loc'][0]}={first['input']}: {first['msg']}") from None
