"""The inputs and outputs of a decoder graph, by name and shape. A graph that is not understood is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from mllmeraser.errors import InputError

# In older opsets the axes of ReduceSum are an attribute.
MIN_OPSET = 13
_PAST = re.compile(r"(past_key_values|past)\.(\d+)\.(key|value)")
_PRESENT = re.compile(r"(present)\.(\d+)\.(key|value)")


@dataclass(frozen=True)
class Signature:
    """The parts of a decoder graph that the steering uses."""

    embeds: ir.Value  # inputs_embeds (b, s, d), or input_ids (b, s)
    mask: ir.Value  # attention_mask (b, past + s)
    logits: ir.Value
    present_keys: tuple[ir.Value, ...]  # of each layer
    past_key: ir.Value  # of layer 0: (b, heads, past, head_dim)
    opset: int

    @property
    def num_layers(self) -> int:
        """The number of decoder layers."""
        return len(self.present_keys)


def read_signature(model: ir.Model, where: str) -> Signature:
    """Read the signature of a decoder graph.

    Args:
        where: the graph's file name, for the messages.

    Raises:
        InputError: the graph is steered already, has no logits, mask or cache by the usual names, or is too old.
    """
    graph = model.graph
    if any(key.startswith("mllmeraser.") for key in model.metadata_props):
        raise InputError(f"{where}: already steered; steer the graph it was made from, with all bundles together")
    inputs = {str(value.name): value for value in graph.inputs}
    outputs = {str(value.name): value for value in graph.outputs}
    embeds = inputs.get("inputs_embeds", inputs.get("input_ids"))
    if embeds is None or "attention_mask" not in inputs or "logits" not in outputs:
        raise InputError(
            f"{where}: not a decoder: it needs inputs_embeds (or input_ids), attention_mask and logits; "
            "give the decoder graph of a text-generating model"
        )
    mask = inputs["attention_mask"]
    if mask.shape is not None and len(mask.shape) != 2:
        raise InputError(
            f"{where}: attention_mask has {len(mask.shape)} dimensions; export the graph with a mask (batch, columns)"
        )
    if "use_cache_branch" in inputs:
        raise InputError(
            f"{where}: merges two decoders by If (use_cache_branch); export one graph with a cache instead"
        )
    past = {
        int(match[2]): value for name, value in inputs.items() if (match := _PAST.fullmatch(name)) and match[3] == "key"
    }
    present = {
        int(match[2]): value
        for name, value in outputs.items()
        if (match := _PRESENT.fullmatch(name)) and match[3] == "key"
    }
    if sorted(present) != list(range(len(present))) or past.keys() != present.keys() or not present:
        raise InputError(
            f"{where}: past_key_values.N.key and present.N.key are not one per layer; "
            "give a decoder exported with its cache"
        )
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if opset < MIN_OPSET:
        raise InputError(f"{where}: opset {opset}; convert it to opset {MIN_OPSET} or newer (onnx.version_converter)")
    keys = tuple(present[index] for index in range(len(present)))
    return Signature(embeds, mask, outputs["logits"], keys, past[0], opset)


def hidden_size(signature: Signature, residual: ir.Value) -> int | None:
    """d, or None if the graph leaves it open."""
    for value in (residual, signature.embeds):
        if value.shape is not None and len(value.shape) == 3 and isinstance(value.shape[2], int):
            return value.shape[2]
    return None
