"""Does a directory of steered graphs keep its promises?

Files and hashes first; then every decoder is found steered or known as a twin; then each steered graph is run on a
probe: at strength 0 it is the base graph bit for bit, and each request, its gates held open, changes the logits. The
directory is not trusted: a damaged file gives a failed check, and nothing in it is executed but graph operators.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from mllmeraser.disk.atomic import sha256_of
from mllmeraser.errors import InputError, VerificationError
from mllmeraser.exporter.checks import Check, CheckFailed, run
from mllmeraser.exporter.checks_files import read_object
from mllmeraser.exporter.layout import MANIFEST
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.onnx.builder import PREFIX
from mllmeraser.exporter.onnx.folder import Graph, read_folder
from mllmeraser.exporter.onnx.insert import METADATA_KEY
from mllmeraser.exporter.onnx.probe import gates_of, run_probe, with_gates, with_strength, without_steering
from mllmeraser.exporter.onnx.settings import head_size
from mllmeraser.exporter.signing import check_signature
from mllmeraser.exporter.verify import Verification

_TOLERATED = {".cache", ".git", ".gitattributes", ".gitignore", ".DS_Store", "model.sig"}
# What ONNX Runtime raises on a graph it cannot load or run.
_RUNTIME_ERRORS = (ort_errors.Fail, ort_errors.InvalidGraph, ort_errors.InvalidArgument, ort_errors.NoSuchFile)
Logits = npt.NDArray[Any]


def verify_directory(directory: Path, base: Path | None = None, public_key: Path | None = None) -> Verification:
    """Check a directory of steered graphs.

    Args:
        base: the directory that was steered, or the checkpoint that was exported; its files are compared too.
        public_key: also check the signature ``model.sig``, with the signer's key.

    Raises:
        InputError: ``directory`` or ``base`` is no directory, or ``public_key`` no key.
    """
    for folder in (directory, base):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such directory")
    checks = [
        run("manifest", lambda: _manifest(directory)),
        run("files", lambda: _files(directory)),
        run("unlisted files", lambda: _unlisted(directory)),
        run("every decoder steered", lambda: _every_decoder(directory)),
    ]
    if base is not None:
        checks.append(run("base", lambda: _base(directory, base)))
    if public_key is not None:
        checks.append(_signature(directory, public_key))
    names = ("steering", "off equals base", "steering acts")
    if not all(check.ok for check in checks):
        failed = next(check.name for check in checks if not check.ok)
        skipped = [Check(name, False, f"not tried, because the check '{failed}' failed") for name in names]
        return Verification((*checks, *skipped))
    for name, check in zip(names, (_steering, _off, _acts), strict=True):
        checks.append(run(name, lambda check=check: check(directory)))  # type: ignore[misc]
    return Verification(tuple(checks))


def _read(directory: Path) -> dict[str, Any]:
    manifest = read_object(directory / MANIFEST)
    if manifest.get("schema") != 1 or manifest.get("format") != "onnx":
        raise CheckFailed(f"{MANIFEST}: not of schema 1 and format onnx")
    for name in (*manifest["files"], *manifest["graphs"]):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not (directory / name).is_file():
            raise CheckFailed(f"{MANIFEST}: {name!r} is not a file of this directory")
    return manifest


def _manifest(directory: Path) -> str:
    manifest = _read(directory)
    if (directory / MANIFEST).read_bytes() != sealed(manifest):
        raise CheckFailed(f"{MANIFEST} is not what was written: its own sha256 does not fit")
    return f"schema 1, made with mllmeraser {manifest['tool']['version']}, {len(manifest['files'])} files"


def _files(directory: Path) -> str:
    files = _read(directory)["files"]
    for name, entry in files.items():
        if (found := sha256_of(directory / name)) != entry["sha256"]:
            raise CheckFailed(f"{name}: sha256 {found}, the manifest says {entry['sha256']}")
    return f"{len(files)} files have the sha256 of {MANIFEST}"


def _unlisted(directory: Path) -> str:
    listed = {MANIFEST, *_read(directory)["files"]}
    found = {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}
    extra = sorted(str(path) for path in found if path.as_posix() not in listed and path.parts[0] not in _TOLERATED)
    if extra:
        raise CheckFailed(f"not in {MANIFEST}: {', '.join(extra)}")
    return f"nothing lies beside the files of {MANIFEST}"


def _graphs(directory: Path) -> dict[str, Graph]:
    """The steered graphs, freshly parsed."""
    graphs = {graph.name: graph for graph in read_folder(directory).graphs}
    return {name: graphs[name] for name in _read(directory)["graphs"]}


def _every_decoder(directory: Path) -> str:
    manifest = _read(directory)
    twins = {entry["twin"] for entry in manifest["graphs"].values()} - {None}
    for graph in read_folder(directory).graphs:
        steered = METADATA_KEY in graph.model.metadata_props
        if graph.decodes and not steered and graph.name not in twins:
            raise CheckFailed(f"{graph.name}: a decoder without steering")
        if steered != (graph.name in manifest["graphs"]):
            raise CheckFailed(f"{graph.name}: steered or not, but the manifest says otherwise")
    count = len(manifest["graphs"])
    return f"{count} steered, {len(twins)} known twins of the base"


def _base(directory: Path, base: Path) -> str:
    manifest = _read(directory)
    if not any(base.rglob("*.onnx")):
        found, wanted = sha256_of(base / "config.json"), manifest["base"]["config_sha256"]
        if found != wanted:
            raise CheckFailed("its config.json is not that of the base this was exported from")
        return "exported from this checkpoint's configuration; the graphs' weights cannot be compared with its shards"
    compared = 0
    twins = {entry["twin"]: name for name, entry in manifest["graphs"].items()}
    for name, entry in manifest["files"].items():
        given = base / twins.get(name, name)
        if entry["origin"] != "base":
            continue
        if not given.is_file() or sha256_of(given) != entry["sha256"]:
            raise CheckFailed(f"{name}: not the base's file")
        compared += 1
    return f"{compared} files are the base's, byte for byte"


def _signature(directory: Path, public_key: Path) -> Check:
    try:
        check_signature(directory, public_key)
    except VerificationError as error:
        return Check("signature", False, str(error))
    return Check("signature", True, f"every file is what the holder of {public_key.name} signed")


def _steering(directory: Path) -> str:
    """Metadata, gates and finite tensors."""
    wanted = [
        r["id"] for b in _read(directory)["bundles"] for r in b["requests"] if r["enabled"] and r["strength"] != 0
    ]
    values = 0
    for name, graph in _graphs(directory).items():
        described = json.loads(graph.model.metadata_props[METADATA_KEY])
        if [request["id"] for request in described["requests"]] != wanted:
            raise CheckFailed(f"{name}: its requests are not those of the manifest")
        if {*gates_of(graph.model).values()} != set(range(len(wanted))):
            raise CheckFailed(f"{name}: a request has no gate")
        for key, value in graph.model.graph.initializers.items():
            if not key.startswith(f"{PREFIX}.requests."):
                continue
            array = np.asarray(value.const_value)
            if not np.isfinite(array).all():
                raise CheckFailed(f"{name}: {key} holds a value that is not finite")
            values += array.size
    return f"requests {', '.join(wanted)}; {values:,} steering values, all finite"


def _logits(directory: Path, name: str, model: ir.Model, strength: float) -> Logits:
    size = head_size({"genai_config.json": directory / "genai_config.json"} if _has_genai(directory) else {})
    try:
        logits = run_probe(model, (directory / name).parent, strength, size)
    except _RUNTIME_ERRORS as error:
        raise CheckFailed(f"{name}: ONNX Runtime cannot run it ({str(error).splitlines()[0]})") from None
    if not np.isfinite(logits).all():
        raise CheckFailed(f"{name}: the logits of the probe are not finite")
    return logits


def _has_genai(directory: Path) -> bool:
    return (directory / "genai_config.json").is_file()


def _off(directory: Path) -> str:
    found = []
    for name in _graphs(directory):
        off = _logits(directory, name, with_strength(_fresh(directory, name), 0.0), 0.0)
        bare = _logits(directory, name, without_steering(_fresh(directory, name)), 1.0)
        against = "its own graph without the steering"
        if not np.array_equal(off, bare):
            raise CheckFailed(f"{name}: at strength 0 logits differ by {_apart(off, bare):.3g}")
        twin = _read(directory)["graphs"][name]["twin"]
        if twin is not None:
            against = twin
            if not np.array_equal(off, _logits(directory, twin, _fresh(directory, twin), 1.0)):
                raise CheckFailed(f"{name}: at strength 0 it is not {twin}")
        found.append(f"{name} against {against}")
    return f"bit for bit: {', '.join(found)}"


def _acts(directory: Path) -> str:
    found = []
    for name in _graphs(directory):
        gates = gates_of(_fresh(directory, name))
        closed = _logits(directory, name, with_gates(_fresh(directory, name), dict.fromkeys(gates, 0.0)), 1.0)
        for request in sorted(set(gates.values())):
            held = {gate: float(owner == request) for gate, owner in gates.items()}
            difference = _apart(_logits(directory, name, with_gates(_fresh(directory, name), held), 1.0), closed)
            if difference == 0:
                raise CheckFailed(f"{name}: request {request} changes nothing with its gates open")
            found.append(f"{difference:.3g}")
    return f"largest change of a logit with the gates held open: {', '.join(found)}"


def _fresh(directory: Path, name: str) -> ir.Model:
    return next(graph.model for graph in read_folder(directory).graphs if graph.name == name)


def _apart(one: Logits, other: Logits) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
