"""The choices of each baseline, with the published values as defaults; ``--set KEY=VALUE`` changes one.

The public scripts' own defaults (lr 5e-4, 5 epochs) are further from what was run than the printed run lines; where a
run line is known it is taken. Published values are for models of 7B: a small model needs its own.
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
    """Gradient steps. AdamW without weight decay, learning rate falling linearly to 0, no warm-up.

    ``epochs`` may be a fraction: so much of one pass. ``max_grad_norm`` null: gradients are not clipped.
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
    """MMUnlearner: the forget steps move weights whose Fisher ratio reaches the threshold."""

    saliency_threshold: Annotated[float, Field(ge=0)] = 1


class Pruning(_Recipe):
    """MANU: this share of the MLP neurons is zeroed, in percent of those a modality reaches."""

    percent: Annotated[float, Field(gt=0, le=100)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 16


class Vector(_Recipe):
    """A steering bundle with one part replaced; ``strength`` null: the calibrated one of the method it comes from."""

    strength: float | None = None


class Words(_Recipe):
    """A sentence that is put before every conversation; ``{names}`` is replaced."""

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
# They read replies or prompts and change no checkpoint: benchmarks/baselines.py shows what they do.
FILTERS = ("input-filter", "input-filter-pictures", "output-filter")


def recipe_of(name: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe of a baseline, some of its values changed by ``KEY=VALUE``.

    Raises:
        InputError: there is no such baseline or key, or the value is not understood.
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
