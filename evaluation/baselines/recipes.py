"""The choices of each baseline, with the published values as defaults; ``--set KEY=VALUE`` changes one.

The public scripts' own defaults (lr 5e-4, 5 epochs) are further from what was run than the printed run lines; where a
run line is known it is taken. Published values are for models of 7B: a small model needs its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmeraser.errors import InputError

Objective = Literal["ga", "ga-diff", "kl-min", "npo", "npo-public"]
Order = Literal["forget-only", "sequential", "interleaved", "joint"]


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Recipe):
    """A low-rank adapter on every linear layer of the language model, merged afterwards."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class Training(_Recipe):
    """Gradient steps. AdamW without weight decay, learning rate falling linearly to 0, no warm-up.

    ``epochs`` may be a fraction: so much of one pass. ``max_grad_norm`` null: gradients are not clipped.
    """

    objective: Objective
    order: Order
    learning_rate: float = Field(1e-5, gt=0)
    epochs: float = Field(2, gt=0)
    batch_size: int = Field(4, ge=1)
    beta: float = Field(0.1, gt=0)
    max_grad_norm: float | None = Field(None, gt=0)
    saliency_threshold: float | None = Field(None, ge=0)  # of MMUnlearner's mask; null: no mask
    lora: Lora | None = Lora()


class Pruning(_Recipe):
    """MANU: this share of the MLP neurons is zeroed, in percent of those a modality reaches."""

    percent: float = Field(2, gt=0, le=100)
    batch_size: int = Field(16, ge=1)


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
    "npo": Training(objective="npo", order="forget-only", beta=0.1),
    "npo-public": Training(objective="npo-public", order="forget-only", beta=0.9),
    "mmunlearner": Training(objective="ga-diff", order="interleaved", saliency_threshold=1, max_grad_norm=1, lora=None),
    "manu": Pruning(),
    "system-prompt": Words(),
    "constant-vector": Vector(),
    "random-vector": Vector(),
    "conditional-steering": Vector(),
}
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
    given: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in type(recipe).model_fields or key == "lora":
            keys = [field for field in type(recipe).model_fields if field != "lora"]
            raise InputError(f"--set {setting}: give KEY=VALUE with one of {', '.join(keys)}")
        given[key] = value
    try:
        return type(recipe).model_validate({**recipe.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--set {first['loc'][0]}={first['input']}: {first['msg']}") from None
