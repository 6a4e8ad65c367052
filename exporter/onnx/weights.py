"""Two graphs over one weights file: the steered graph, and its twin, which is the base's."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.folder import Graph

# A graph that holds fewer bytes of weights inside is simply written twice.
_WORTH_SHARING = 64 * 1024


def twin_name(graph: Graph) -> str:
    """The name of a graph's twin: ``decoder_model_merged_q4_base.onnx`` of ``decoder_model_merged_q4.onnx``."""
    return graph.beside(Path(graph.name).stem + "_base.onnx")


def inline_bytes(model: ir.Model) -> int:
    """The bytes of weights inside the graph's own file."""
    values = (value.const_value for value in model.graph.initializers.values())
    return sum(value.nbytes for value in values if value is not None and not isinstance(value, ir.ExternalTensor))


def must_split(graph: Graph) -> bool:
    """Whether the graph holds its weights inside; they must move to a data file before two graphs can share them."""
    return not graph.data and inline_bytes(graph.model) > _WORTH_SHARING


def write_graph(model: ir.Model, path: Path, data_name: str | None = None) -> None:
    """Write a graph to ``path``. With ``data_name`` its weights go into that file beside it, else they do not move.

    Raises:
        InputError: the graph is damaged.
    """
    try:
        ir.save(model, path, external_data=data_name)
    except (ir.serde.SerdeError, UnicodeEncodeError) as error:
        raise InputError(f"{path.name}: damaged ({error.__cause__ or error}); download it again") from None
