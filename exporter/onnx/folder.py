"""A given directory of ONNX graphs: its graphs, their data files, and the settings beside them.

The directory comes from anybody, and letters or lists of people may lie in it. The output gets its graphs, the data
files that they name, and of the rest only settings and licences whose names are known. A data file must lie beside its
graph, and no file may be a link that leaves the directory.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx_ir as ir
from google.protobuf.message import DecodeError

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.settings import CONFIG, GENAI_CONFIG
from mllmeraser.exporter.sidecars import READ_BY_LOADERS, is_licence

GRAPH_SUFFIX = ".onnx"
# Of transformers, transformers.js and onnxruntime-genai.
_SETTINGS = {CONFIG, GENAI_CONFIG, "quantize_config.json", "vision_processing.json", *READ_BY_LOADERS}


@dataclass(frozen=True)
class Graph:
    """One parsed graph file. Its external weights are not read."""

    name: str  # relative to the directory, with "/"
    path: Path
    model: ir.Model
    data: tuple[str, ...]  # names of its data files, beside it

    @property
    def decodes(self) -> bool:
        """Whether the graph is a decoder, which gives logits."""
        return any(value.name == "logits" for value in self.model.graph.outputs)

    def beside(self, name: str) -> str:
        """The name, relative to the directory, of a file beside this graph."""
        return str(PurePosixPath(self.name).with_name(name))


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model directory that can be carried."""

    root: Path
    graphs: tuple[Graph, ...]
    settings: dict[str, Path]  # relative name -> real file


def read_folder(directory: Path) -> ModelFolder:
    """Find and parse the graphs of a directory.

    Raises:
        InputError: there is no directory or no graph, a graph is damaged, a data file is missing or lies elsewhere, or
            a file is a link that leaves the directory.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give a directory with .onnx graphs")
    root = directory.resolve()
    names = sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    graphs = tuple(_graph(root, name) for name in names if name.endswith(GRAPH_SUFFIX))
    if not graphs:
        raise InputError(f"{directory}: no .onnx graph in it; export one with: mllmeraser export BASE --format onnx")
    settings = {name: real_file(root, name) for name in names if _is_setting(name)}
    return ModelFolder(root, graphs, settings)


def _is_setting(name: str) -> bool:
    plain = PurePosixPath(name).name
    return plain in _SETTINGS or is_licence(plain)


def real_file(root: Path, name: str) -> Path:
    """The real path of a file. Links are followed within the directory and within the Hub's cache.

    Raises:
        InputError: the file is missing, or is a link that leaves the directory.
    """
    real = (root / name).resolve()
    cache = next((parent.parent for parent in root.parents if parent.name == "snapshots"), None)
    if not real.is_relative_to(root) and (cache is None or not real.is_relative_to(cache / "blobs")):
        raise InputError(f"{root / name}: a link that leaves the directory; put the file itself there")
    if not real.is_file():
        raise InputError(f"{root / name}: missing; download the model again")
    return real


def _graph(root: Path, name: str) -> Graph:
    path = real_file(root, name)
    model = load_graph(root / name)
    locations = _locations(model)
    for location in sorted(locations):
        if PurePosixPath(location).name != location or "\\" in location or location.startswith(".") or not location:
            raise InputError(f"{root / name}: names a data file elsewhere, {location!r}; do not trust this graph")
        real_file(root, str(PurePosixPath(name).with_name(location)))
    return Graph(name, path, model, tuple(sorted(locations)))


def _locations(model: ir.Model) -> set[str]:
    """Every data file that initializers or constants name, in branches and local functions too."""
    bodies = [model.graph, *(function.graph for function in model.functions.values())]
    graphs = [graph for body in bodies for graph in (body, *body.subgraphs())]
    tensors = [value.const_value for graph in graphs for value in graph.initializers.values()]
    for node in (node for body in bodies for node in body.all_nodes()):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensors.append(attribute.as_tensor())
    return {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}


def load_graph(path: Path) -> ir.Model:
    """Parse a graph; external weights stay on the disk.

    Raises:
        InputError: the file is no ONNX graph.
    """
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it warns about is an error here
    try:
        model = ir.load(path)
    except (DecodeError, ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        lines = str(error).splitlines() or ["damaged"]
        raise InputError(f"{path}: not an ONNX graph ({lines[0]}); download it again") from None
    finally:
        logger.setLevel(level)
    if not model.graph.outputs:
        raise InputError(f"{path}: not an ONNX graph (it has no output); download it again")
    used = [value for node in model.graph.all_nodes() for value in node.inputs if value is not None]
    for value in (*used, *model.graph.outputs):
        if value.producer() is None and not value.is_graph_input() and not value.is_initializer():
            raise InputError(f"{path}: damaged, no node gives {value.name!r}; download it again")
    return model
