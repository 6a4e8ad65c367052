"""Steer a directory of ONNX graphs. The output appears whole or not at all.

Encoder, embeddings and the decoder's weights are linked, byte for byte. Every decoder of the directory is steered, so
none stays without steering. With a constant strength each decoder gets a twin, ``…_base.onnx``: the given graph, over
the same weights file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mllmeraser
from mllmeraser.bundle.bundle import Bundle
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.disk.link import Link, link_or_copy, reflink
from mllmeraser.disk.staging import publish, staging, write
from mllmeraser.disk.target import directory_target
from mllmeraser.errors import InputError
from mllmeraser.exporter.licence import read_licence
from mllmeraser.exporter.manifest import SCHEMA, Entry, Origin, render, tensor_hashes
from mllmeraser.exporter.names import CARD, MANIFEST
from mllmeraser.exporter.onnx.bundles import graph_requests
from mllmeraser.exporter.onnx.card import render_card
from mllmeraser.exporter.onnx.folder import Graph, ModelFolder, load_graph, read_folder, real_file
from mllmeraser.exporter.onnx.insert import Inserted, Toggle, insert_steering
from mllmeraser.exporter.onnx.requests import GraphRequest
from mllmeraser.exporter.onnx.settings import CONFIG, changed_settings, head_size, read_settings
from mllmeraser.exporter.onnx.weights import must_split, twin_name, write_graph


@dataclass(frozen=True)
class SteeredGraph:
    """One steered decoder; ``twin`` is the name of the base's graph, or empty."""

    name: str
    twin: str
    reply_steps: int
    carries: bool  # whether its cache has one more layer


@dataclass(frozen=True)
class SteeredDirectory:
    """What :func:`steer_directory` wrote."""

    output: Path
    toggle: Toggle
    graphs: tuple[SteeredGraph, ...]
    requests: dict[str, str]  # scope and edit by id
    files: dict[str, int]  # bytes by name
    warnings: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The JSON document of ``onnx-steer --json``."""
        return {
            "schema": SCHEMA,
            "output": str(self.output),
            "toggle": self.toggle,
            "requests": list(self.requests),
            "graphs": [{"name": g.name, "twin": g.twin or None, "reply_steps": g.reply_steps} for g in self.graphs],
            "files": [{"name": name, "bytes": size} for name, size in sorted(self.files.items())],
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """For a person: the files, the graphs and the requests, without the warnings."""
        found = [f"{self.output}: {len(self.files)} files, {sum(self.files.values()):,} bytes"]
        for graph in self.graphs:
            twin = f", the base's graph is {graph.twin}" if graph.twin else ""
            reply = f"{graph.reply_steps - 1} reply positions" if graph.carries else "no state in the cache"
            found.append(f"  {graph.name}: steered, {reply}{twin}")
        return [*found, *(f"  request {id_}: {rule}" for id_, rule in self.requests.items())]


def steer_directory(
    model_dir: Path,
    bundles: Sequence[Bundle],
    output: Path,
    *,
    toggle: Toggle = "constant",
    link: Link = "auto",
    overwrite: bool = False,
) -> SteeredDirectory:
    """Write the steering of one or more bundles into every decoder graph of a directory.

    The arguments are those of :func:`mllmeraser.onnx_steer`.

    Raises:
        InputError: directory, graph, bundle or output cannot be used; nothing was written.
        MllmEraserError: the disk is full; nothing is left behind.
    """
    requests = graph_requests(bundles)
    folder = read_folder(model_dir)
    output = directory_target(output, MANIFEST if overwrite else None, folder.root)
    _check_fit(folder, bundles)
    decoders = [graph for graph in folder.graphs if graph.decodes]
    if not decoders:
        raise InputError(f"{model_dir}: none of its graphs gives logits; give the directory of a text-generating model")
    with staging(output) as staged:
        job = _Job(folder, staged, requests, toggle, link)
        for graph in decoders:
            job.steer(graph)
        job.carry()
        result = job.finish(bundles, output)
        publish(staged, output, MANIFEST if overwrite else None)
    return result


def _check_fit(folder: ModelFolder, bundles: Sequence[Bundle]) -> None:
    """Compare the family, if the directory names it. Sizes are compared with the graph itself."""
    if CONFIG not in folder.settings:
        return
    config = read_settings(folder.settings[CONFIG])
    # genai's builder makes text-only graphs of a family. They say llama or qwen2, and have no such part.
    if not any(isinstance(config.get(part), dict) for part in ("text_config", "vision_config")):
        return
    found = config.get("model_type")
    for bundle in bundles:
        wanted = bundle.metadata.base.model_type
        if isinstance(found, str) and found != wanted:
            raise InputError(f"{folder.root / CONFIG}: model_type {found}, the bundle was computed on a {wanted}")


def _place(source: Path, target: Path, link: Link) -> None:
    """Share the blocks if the file system can, else copy.

    ``auto`` makes no hard link: onnx's own loader refuses weights that have one, and would then refuse the given
    directory too.
    """
    if link != "auto":
        link_or_copy(source, target, link)
    elif not reflink(source, target):
        link_or_copy(source, target, "copy")


class _Job:
    """One run, which fills a staged directory."""

    def __init__(
        self, folder: ModelFolder, staged: Path, requests: Sequence[GraphRequest], toggle: Toggle, link: Link
    ) -> None:
        self.folder, self.staged, self.requests, self.toggle, self.link = folder, staged, requests, toggle, link
        self.graphs: list[SteeredGraph] = []
        self.inserted: list[Inserted] = []
        self._origin: dict[str, Origin] = {}
        self._split: list[str] = []

    def steer(self, graph: Graph) -> None:
        """Write the steered graph, its twin, and its data files."""
        twin, target = twin_name(graph), self._target(graph.name)
        model = graph.model
        for data in graph.data:
            self._link(graph.beside(data))
        if must_split(graph):
            data = Path(graph.name).name + "_data"
            write_graph(model, self._target(twin), data)
            self._origin |= {twin: "tool", graph.beside(data): "tool"}
            self._split.append(Path(graph.name).name)
            model = load_graph(self.staged / twin)  # its weights are now on the disk, not in memory
        else:
            self._link(graph.name, twin)
        self.inserted.append(
            insert_steering(model, self.requests, self.toggle, graph.name, head_size(self.folder.settings))
        )
        write_graph(model, target)
        self._origin[graph.name] = "tool"
        if self.toggle == "input":  # strength 0 is the base already, so a twin would only be a way round the steering
            (self.staged / twin).unlink()
            del self._origin[twin]
            twin = ""
        self.graphs.append(SteeredGraph(graph.name, twin, self.inserted[-1].reply_steps, self.inserted[-1].carries))

    def carry(self) -> None:
        """Link everything else: encoder, embeddings and settings."""
        for graph in self.folder.graphs:
            if not graph.decodes:
                for name in (graph.name, *map(graph.beside, graph.data)):
                    self._link(name)
        state = any(inserted.carries for inserted in self.inserted)
        changed = changed_settings(self.folder.settings, state, self._split)
        for name, path in self.folder.settings.items():
            content = changed.get(name)
            self._origin[name] = "base" if content is None else "tool"
            write(self._target(name), path.read_bytes() if content is None else content)

    def finish(self, bundles: Sequence[Bundle], output: Path) -> SteeredDirectory:
        """Write the card and the manifest."""
        graphs = {graph.name: graph.twin for graph in self.graphs}
        licence = read_licence(self.folder.root)
        write(self._target(CARD), render_card(bundles, graphs, licence, self._notes()).encode())
        self._origin[CARD] = "tool"
        entries = {
            name: Entry((self.staged / name).stat().st_size, sha256_of(self.staged / name), origin)
            for name, origin in sorted(self._origin.items())
        }
        origin: dict[str, object] = {
            "schema": SCHEMA,
            "format": "onnx",
            "tool": {"name": "mllmeraser", "version": mllmeraser.__version__},
            "base": bundles[0].metadata.base.model_dump(mode="json"),
            "bundles": [bundle.metadata.model_dump(mode="json", by_alias=True) for bundle in bundles],
            "tensors": [tensor_hashes(bundle.tensors) for bundle in bundles],
            "toggle": self.toggle,
            "graphs": {g.name: {"twin": g.twin or None, "reply_steps": g.reply_steps} for g in self.graphs},
        }
        write(self.staged / MANIFEST, render(origin, entries))
        sizes = {name: entry.size for name, entry in entries.items()}
        sizes[MANIFEST] = (self.staged / MANIFEST).stat().st_size
        warnings = tuple(warning for inserted in self.inserted for warning in inserted.warnings)
        rules = {r.id: f"scope {r.rule.scope}, edit {r.rule.edit}" for r in self.requests}
        return SteeredDirectory(output, self.toggle, tuple(self.graphs), rules, sizes, warnings)

    def _notes(self) -> str:
        switch = (
            "The strength is a constant of the graph; the twin is the base's graph and reads the same weights file."
            if self.toggle == "constant"
            else "The graph takes the input `steering_strength` (1,): 1 steers, 0 is the base."
        )
        if not any(graph.carries for graph in self.graphs):
            return f"{switch} Nothing travels from the prompt to the reply."
        return f"{switch} What the gates said travels to the reply as one more layer of the cache."

    def _target(self, name: str) -> Path:
        path = self.staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _link(self, name: str, as_name: str | None = None) -> None:
        target = self._target(as_name or name)
        if (as_name or name) not in self._origin:
            _place(real_file(self.folder.root, name), target, self.link)
            self._origin[as_name or name] = "base"
