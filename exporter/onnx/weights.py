"""Two graphs over one weights file: the steered graph and its twin, the base's."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.folder import Graph

# Below this a graph with its weights inside is simply written twice.
_WORTH_SHARING = 64 * 1024


def twin_name(graph: Graph) -> str:
    """``decoder_model_merged_q4.onnx`` -> ``decoder_model_merged_q4_base.onnx``."""
    return graph.beside(Path(graph.name).stem + "_base.onnx")


def inline_bytes(model: ir.Model) -> int:
    """Bytes of weights inside the graph's own file."""
    values = (value.const_value for value in model.graph.initializers.values())
    return sum(value.nbytes for value in values if value is not None and not isinstance(value, ir.ExternalTensor))


def must_split(graph: Graph) -> bool:
    """Whether the graph holds its weights inside, so that they have to move out before two graphs can share them."""
    return not graph.data and inline_bytes(graph.model) > _WORTH_SHARING


def write_graph(model: ir.Model, path: Path, data_name: str | None = None) -> None:
    """Write a graph to ``path``; with ``data_name`` its weights beside it, else they stay where they are.

    Raises:
        InputError: the graph is damaged.
    """
    try:
        ir.save(model, path, external_data=data_name)
    except (ir.serde.SerdeError, UnicodeEncodeError) as error:
        raise InputError(f"{path.name}: damaged ({error.__cause__ or error}); download it again") from None
