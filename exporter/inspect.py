"""What a bundle or an exported directory holds, as one object for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllmeraser.bundle.bundle import load_bundle
from mllmeraser.bundle.metadata import Metadata, edited_tokens, expected_forms
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError, first_line
from mllmeraser.exporter.checks import CheckFailed
from mllmeraser.exporter.opened import Opened
from mllmeraser.inference.source import DAMAGE
from mllmeraser.modeling_patches.format_mllmeraser import STEERING_FILE

SCHEMA = 1


def inspect(path: str | Path) -> dict[str, Any]:
    """What a bundle or an exported directory holds: base, requests, gates, statistics, hashes and sizes.

    Returns:
        the JSON document of ``inspect --json`` (``docs/json.md``). It repeats what the file or directory says of
        itself; :func:`verify` checks that.

    Raises:
        InputError: ``path`` is neither a bundle nor an exported directory, or it is damaged.

    Example::

        [request["id"] for request in mllmeraser.inspect("steered")["requests"]]
    """
    path = Path(path)
    return _inspect_directory(path) if path.is_dir() else _inspect_bundle(path)


def _inspect_bundle(path: Path) -> dict[str, Any]:
    metadata = load_bundle(path).metadata
    return {
        "schema": SCHEMA,
        "kind": "bundle",
        **_common([metadata], path.stat().st_size),
        "steering_enabled": True,
        "steering_strength": 1.0,
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}},
    }


def _inspect_directory(directory: Path) -> dict[str, Any]:
    opened = Opened(directory)
    try:
        document = _of_graphs(opened) if opened.format == "onnx" else _of_checkpoint(opened)
        summary(document)  # a damaged value may be seen only where it is printed
        return document
    except CheckFailed as failure:
        raise InputError(f"{directory}: {failure}; give a bundle, or a directory that mllmeraser export made") from None
    except DAMAGE as error:
        raise InputError(f"{directory}: damaged ({first_line(error)}); run: mllmeraser verify DIR") from None


def _of_checkpoint(opened: Opened) -> dict[str, Any]:
    manifest, config = opened.manifest, opened.config
    metadata = opened.provenance.bundles
    document = {
        "schema": SCHEMA,
        "kind": "checkpoint",
        **({"edition": 1} if opened.first_edition else {}),
        **_common(metadata, (opened.directory / STEERING_FILE).stat().st_size),
        "base": manifest["base"],  # the exported base; a bundle knows only the base it was computed on
        "steering_enabled": config["steering_enabled"],
        "steering_strength": config["steering_strength"],
        "files": _files(manifest),
    }
    switches = {entry["id"]: entry for entry in config["steering"]["requests"]}
    for request in document["requests"]:
        # The switches as they are now: config.json may have been edited since the export.
        now = switches[request["id"]]
        request |= {"enabled": now["enabled"], "strength": now["strength"]}
    return document


def _of_graphs(opened: Opened) -> dict[str, Any]:
    manifest = opened.manifest
    metadata = opened.provenance.bundles
    return {
        "schema": SCHEMA,
        "kind": "onnx",
        **_common(metadata, sum(_tensor_bytes(meta) for meta in metadata)),
        "base": {key: value for key, value in manifest["base"].items() if key not in ("weights", "beside_sha256")},
        "steering_enabled": True,
        "steering_strength": 1.0,
        "toggle": manifest["toggle"],
        "graphs": manifest["graphs"],
        "files": _files(manifest),
    }


def _files(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"bytes": e["bytes"], "sha256": e["sha256"]} for name, e in manifest["files"].items()}


def _tensor_bytes(meta: Metadata) -> int:
    """The bytes of a bundle's tensors."""
    return sum(math.prod(shape) * {"F32": 4, "I8": 1}[dtype] for dtype, shape in expected_forms(meta).values())


def _common(metadata: Sequence[Metadata], steering_bytes: int) -> dict[str, Any]:
    base = metadata[0].base.model_dump(mode="json", exclude={"weights", "beside_sha256"})
    requests = [row for meta in metadata for row in _requests(meta)]
    layers = sum(len(request["layers"]) for request in requests)
    return {
        "base": base,
        "layers": sorted({layer for meta in metadata for layer in meta.layers}),
        "requests": requests,
        "versions": metadata[0].versions,
        "steering_bytes": steering_bytes,
        # The size of the same steering in the paper's form: a d × d matrix in fp32 for every steered layer.
        "dense_bytes": layers * base["hidden_size"] ** 2 * 4,
    }


def _requests(meta: Metadata) -> list[dict[str, Any]]:
    shared = {
        "layers": meta.layers,
        "gate_layer": meta.gate_layer,
        "gate": meta.gate.model_dump(mode="json"),
        "edit": meta.edit,
        "prompt_positions": meta.prompt_positions,
        "reply_steps": meta.reply_steps,
        "method": meta.method.model_dump(mode="json"),
        "template_sha256": meta.template_sha256,
        "seed": meta.seed,
    }
    return [{**request.model_dump(mode="json"), **shared} for request in meta.requests]


def summary(document: dict[str, Any]) -> list[str]:
    """The lines of :func:`inspect` for a person."""
    base = document["base"]
    name = base["repo_id"] or "a local directory"
    lines = [
        f"{document['kind']} of {base['architecture']} ({name}), {base['num_layers']} layers of {base['hidden_size']}",
        f"steering {'on' if document['steering_enabled'] else 'OFF'}, strength {document['steering_strength']:g}, "
        f"{document['steering_bytes']:,} bytes (the paper's dense matrices: {document['dense_bytes']:,})",
    ]
    if document.get("edition") == 1:
        lines.append("made by the first edition: to verify or push it, export again with the kept bundle")
    for graph, entry in document.get("graphs", {}).items():
        twin = "" if entry["twin"] is None else f", the base's graph is {entry['twin']}"
        lines.append(f"{graph}: steered, {entry['reply_steps'] - 1} positions of the reply{twin}")
    for request in document["requests"]:
        gate = request["gate"]
        threshold = "" if gate["threshold"] is None else f" at {gate['threshold']:.3g}"
        where = "each layer" if request["gate_layer"] is None else f"layer {request['gate_layer']}"
        through = "" if gate["projection"] is None else f" through {gate['projection']} random projections"
        tokens = edited_tokens(
            gate["scope"],
            gate["turn"] is not None,
            request["edit"],
            request["prompt_positions"],
            request["reply_steps"],
        )
        made = f"{request['n_forget']} records to forget and {request['n_retain']} to keep, computed"
        if request["n_forget"] == 0:
            made = "of records that are not known, imported"
        lines += [
            f"request {request['id']}{'' if request['enabled'] else ' (off)'}: {made} {request['created']}",
            f"  layers {', '.join(map(str, request['layers']))}, edit {request['edit']}, strength "
            f"{request['strength']:g}, {tokens}",
            f"  gate {gate['kind']}, {gate['shape']}{threshold}, scope {gate['scope']}, read at {where}{through}",
        ]
        for layer, row in request["statistics"].items():
            held_out = "not measured" if row["auroc_heldout"] is None else f"{row['auroc_heldout']:.4f}"
            lines.append(f"  layer {layer}: AUROC {row['auroc_train']:.4f}, held out {held_out}")
    for name, entry in document["files"].items():
        sha256 = "not hashed" if entry["sha256"] is None else f"{entry['sha256'][:16]}…"
        lines.append(f"{sha256:17}  {entry['bytes']:>13,}  {name}")
    return lines
