"""Export one module as one graph: example inputs, the dimensions that vary, names, and the weights beside it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim

BATCH = "batch_size"  # transformers.js looks for this very name
# The sizes of the example inputs. None is 0 or 1, which the exporter takes for constants, and no two are equal.
_B, _S, _PAST = 2, 3, 5


@dataclass(frozen=True)
class GraphPlan:
    """How a module is traced. ``dynamic`` has the structure of ``inputs``, and names the dimensions that vary."""

    name: str
    module: nn.Module
    inputs: tuple[Any, ...]
    dynamic: tuple[Any, ...]
    input_names: Sequence[str]
    output_names: Sequence[str]


def embed_plan(module: nn.Module) -> GraphPlan:
    """Token ids (b, s) to embeddings."""
    dynamic = ({0: Dim(BATCH), 1: Dim("sequence_length")},)
    ids = torch.zeros(_B, _S, dtype=torch.long)
    return GraphPlan("embed_tokens", module, (ids,), dynamic, ["input_ids"], ["inputs_embeds"])


def decoder_plan(module: nn.Module, text: Any, dtype: torch.dtype, position_axes: int) -> GraphPlan:
    """Embeddings, mask, positions and cache to logits and cache.

    Args:
        text: the configuration of the language model.
        dtype: the number format of the cache.
        position_axes: 0 for positions (b, s), 3 for Qwen2.5-VL's positions (3, b, s).
    """
    heads, layers = text.num_key_value_heads, text.num_hidden_layers
    head_dim = text.to_dict().get("head_dim") or text.hidden_size // text.num_attention_heads
    past = [tuple(torch.zeros(_B, heads, _PAST, head_dim, dtype=dtype) for _ in range(2)) for _ in range(layers)]
    positions = torch.arange(_PAST, _PAST + _S).expand(_B, _S)
    batch, sequence, before, total = (
        Dim(name) for name in (BATCH, "sequence_length", "past_sequence_length", "total_sequence_length")
    )
    where: dict[int, Any] = {0: batch, 1: sequence}
    if position_axes:
        positions, where = positions.expand(position_axes, _B, _S), {1: batch, 2: sequence}
    inputs = (
        torch.zeros(_B, _S, text.hidden_size),
        torch.ones(_B, _PAST + _S, dtype=torch.long),
        positions.contiguous(),
        past,
    )
    cache = [({0: batch, 2: before}, {0: batch, 2: before}) for _ in range(layers)]
    names = [f"{layer}.{leaf}" for layer in range(layers) for leaf in ("key", "value")]
    return GraphPlan(
        "decoder_model_merged",
        module,
        inputs,
        ({0: batch, 1: sequence}, {0: batch, 1: total}, where, cache),
        ["inputs_embeds", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)],
        ["logits", *(f"present.{name}" for name in names)],
    )


def write_plan(plan: GraphPlan, folder: Path, suffix: str = "") -> list[str]:
    """Trace a module and write ``<name><suffix>.onnx``, with its weights in ``….onnx_data``.

    Returns:
        the names of the files.
    """
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            plan.module.eval(),
            plan.inputs,
            dynamo=True,
            dynamic_shapes=plan.dynamic,
            input_names=plan.input_names,
            output_names=plan.output_names,
            verbose=False,
        )
    model: ir.Model = program.model
    _forget_traces(model)
    name = f"{plan.name}{suffix}.onnx"
    ir.save(model, folder / name, external_data=f"{name}_data")
    return [file for file in (name, f"{name}_data") if (folder / file).exists()]


def _forget_traces(model: ir.Model) -> None:
    """Drop the stack traces that the exporter notes at every node: they hold paths of this machine."""
    model.doc_string = model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.doc_string = None
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes about packages that we do not use and about names that it merges."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
