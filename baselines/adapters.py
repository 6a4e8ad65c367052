"""A LoRA adapter (Hu et al., arXiv 2106.09685; the peft package) on the linear layers of the language model.

Not on the vision tower and the projector, which MLLMU-Bench's scripts mean to leave out too. (They give peft the last
parts of names, so that a tower whose layers are called ``q_proj`` as well is adapted after all; here whole names are
given.) Without its adapter the model is the frozen base: no second copy is held.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from mllmeraser.baselines.recipes import Lora
from mllmeraser.errors import InputError


def adapted(model: PreTrainedModel, recipe: Lora) -> Any:
    """The model with a fresh adapter, the only part of it that learns; altered in place, until it is merged.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InputError("this baseline needs the package peft; pip install 'mllmeraser[baselines]'") from None
    layers = {id(module) for module in model.get_decoder().layers.modules() if isinstance(module, nn.Linear)}
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=[name for name, module in model.named_modules() if id(module) in layers],
        init_lora_weights="gaussian",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that will be another
        return get_peft_model(model, config)


def merged(model: Any) -> PreTrainedModel:
    """The plain model with the adapter added to its weights: W + (α/r) B A."""
    return model.merge_and_unload()
