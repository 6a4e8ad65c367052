"""A LoRA adapter (Hu et al., arXiv 2106.09685; the peft package) on the linear layers of the language model.

The vision tower and the projector get none. MLLMU-Bench's scripts mean to leave them out too, but give peft only the
last part of each name, so that a tower with layers called ``q_proj`` is adapted after all. Here peft gets whole names.
With its adapter disabled the model is the frozen base, so no second copy is needed.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from mllmeraser.errors import InputError


def adapted(model: PreTrainedModel, *, rank: int, alpha: int, dropout: float) -> Any:
    """The model with a fresh adapter, which is the only part that learns. The model is altered in place.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InputError("a LoRA adapter needs the package peft; pip install 'mllmeraser[baselines]'") from None
    layers = {id(module) for module in model.get_decoder().layers.modules() if isinstance(module, nn.Linear)}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=[name for name, module in model.named_modules() if id(module) in layers],
        init_lora_weights="gaussian",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft imports a name that transformers will rename
        return get_peft_model(model, config)


def merged(model: Any) -> PreTrainedModel:
    """The plain model, with the adapter added to its weights: W + (α/r) B A."""
    return model.merge_and_unload()
