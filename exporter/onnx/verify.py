"""Check the promises of a directory of steered graphs.

First come files and hashes. Then every decoder must be steered, or known as a twin, and each steered graph must be what
the steering of its twin gives (:mod:`mllmeraser.exporter.onnx.again`). Then each runs on a probe: at strength 0 it must
be the base's graph bit for bit, each request must change the logits when its gates are held open, two prompts that are
sealed must give the same logits bit for bit, and what is said behind a seal must be a refusal. The directory is not
trusted: a damaged file gives a failed check, and only graph operators are executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from tokenizers import Tokenizer

from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import first_line
from mllmeraser.exporter.checks import Check, CheckFailed, run
from mllmeraser.exporter.checks_shared import refusing_requests, shared_checks
from mllmeraser.exporter.onnx.again import difference
from mllmeraser.exporter.onnx.builder import PREFIX
from mllmeraser.exporter.onnx.folder import load_graph, read_folder
from mllmeraser.exporter.onnx.insert import METADATA_KEY, SCHEMA, Toggle
from mllmeraser.exporter.onnx.probe import gates_of, run_probe, with_gates, with_strength, without_steering
from mllmeraser.exporter.onnx.settings import head_size
from mllmeraser.exporter.opened import Opened
from mllmeraser.judging.refusal import is_refusal

# ONNX Runtime raises these on a graph that it cannot load or run.
_RUNTIME_ERRORS = (ort_errors.Fail, ort_errors.InvalidGraph, ort_errors.InvalidArgument, ort_errors.NoSuchFile)
Logits = npt.NDArray[Any]
_TOKENIZER = "tokenizer.json"


def graph_checks(opened: Opened, base: Path | None) -> list[Check]:
    """All checks that only read.

    Args:
        base: the directory that was steered, or the checkpoint that was exported: also compare its files.
    """
    checks = [
        *shared_checks(opened),
        run("every decoder steered", lambda: _every_decoder(opened)),
        run("bundles", lambda: _bundles(opened)),
    ]
    if base is not None:
        checks.append(run("base", lambda: _base(opened, base)))
    return checks


def run_checks(opened: Opened, distrusted: str | None) -> list[Check]:
    """The checks that look into the graphs and run them.

    Args:
        distrusted: the first check that failed; then nothing is run.
    """
    named: dict[str, Callable[[Opened], str]] = {
        "steering": _steering,
        "off equals base": _off,
        "steering acts": _acts,
        "nothing passes a seal": _seals,
        "refuses": _refuses,
    }
    if distrusted is not None:
        return [Check(name, False, f"not tried, because the check '{distrusted}' failed") for name in named]
    return [run(name, partial(check, opened)) for name, check in named.items()]


def _every_decoder(opened: Opened) -> str:
    manifest = opened.manifest
    twins = {entry["twin"] for entry in manifest["graphs"].values()} - {None}
    for graph in read_folder(opened.directory).graphs:
        steered = METADATA_KEY in graph.model.metadata_props
        if graph.decodes and not steered and graph.name not in twins:
            raise CheckFailed(f"{graph.name}: a decoder without steering")
        if steered != (graph.name in manifest["graphs"]):
            raise CheckFailed(f"{graph.name}: is {'' if steered else 'not '}steered, but the manifest says otherwise")
    count = len(manifest["graphs"])
    return f"{count} steered, {len(twins)} known twins of the base"


def _base(opened: Opened, base: Path) -> str:
    manifest = opened.manifest
    if not any(base.rglob("*.onnx")):
        found, wanted = sha256_of(base / "config.json"), manifest["base"]["config_sha256"]
        if found != wanted:
            raise CheckFailed("config.json of this base is not that of the exported base")
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


def _switched_on(opened: Opened) -> list[dict[str, Any]]:
    """What a graph must say of each request, by the manifest."""
    return [
        {
            "id": request["id"],
            "strength": request["strength"],
            "layers": bundle["layers"],
            "scope": bundle["gate"]["scope"],
            "edit": bundle["edit"],
        }
        for bundle in opened.manifest["bundles"]
        for request in bundle["requests"]
        if request["enabled"] and request["strength"] != 0
    ]


def _bundles(opened: Opened) -> str:
    """Each graph is what the steering of its twin by the bundles gives: no node, wire or number was changed since."""
    manifest, tensors = opened.manifest, 0
    if manifest["toggle"] not in get_args(Toggle):
        raise CheckFailed(f"the manifest's toggle is {manifest['toggle']!r}")
    for name, entry in manifest["graphs"].items():
        steered = _fresh(opened, name)
        if json.loads(steered.metadata_props[METADATA_KEY]).get("schema") != SCHEMA:
            raise CheckFailed(f"{name}: steered by another version; steer its base again")
        twin = None if entry["twin"] is None else _fresh(opened, entry["twin"])
        size = _head_size(opened)
        if (odd := difference(steered, twin, opened.provenance, manifest["toggle"], size)) is not None:
            raise CheckFailed(f"{name}: {odd} is not as the steering of the bundles gives it; steer the base again")
        tensors += sum(key.startswith(f"{PREFIX}.requests.") for key in steered.graph.initializers)
    return f"{len(manifest['graphs'])} graph(s) are as steering gives them again; {tensors} tensors are the bundles'"


def _steering(opened: Opened) -> str:
    """Each request has a gate, and every tensor is finite."""
    wanted = _switched_on(opened)
    values = 0
    for name in opened.manifest["graphs"]:
        model = _fresh(opened, name)
        if {*gates_of(model).values()} != set(range(len(wanted))):
            raise CheckFailed(f"{name}: a request has no gate")
        for key, value in model.graph.initializers.items():
            if not key.startswith(f"{PREFIX}.requests."):
                continue
            array = np.asarray(value.const_value)
            if not np.isfinite(array).all():
                raise CheckFailed(f"{name}: {key} holds a value that is not finite")
            values += array.size
    said = ", ".join(f"{request['id']} ({request['scope']}, {request['edit']})" for request in wanted)
    return f"requests {said}; {values:,} steering values, all finite"


def _head_size(opened: Opened) -> int | None:
    genai = opened.directory / "genai_config.json"
    return head_size({genai.name: genai} if genai.is_file() else {})


def _logits(opened: Opened, name: str, model: ir.Model, strength: float, prompt: int = 0, reply: int = 1) -> Logits:
    try:
        folder = (opened.directory / name).parent
        logits = run_probe(model, folder, strength, _head_size(opened), prompt, reply)
    except _RUNTIME_ERRORS as error:
        raise CheckFailed(f"{name}: ONNX Runtime cannot run it ({str(error).splitlines()[0]})") from None
    if not np.isfinite(logits).all():
        raise CheckFailed(f"{name}: the logits of the probe are not finite")
    return logits


def _off(opened: Opened) -> str:
    found = []
    for name, entry in opened.manifest["graphs"].items():
        off = _logits(opened, name, with_strength(_fresh(opened, name), 0.0), 0.0)
        bare = _logits(opened, name, without_steering(_fresh(opened, name)), 1.0)
        against = "its own graph without the steering"
        if not np.array_equal(off, bare):
            raise CheckFailed(f"{name}: at strength 0 logits differ by {_apart(off, bare):.3g}")
        if (twin := entry["twin"]) is not None:
            against = twin
            if not np.array_equal(off, _logits(opened, twin, _fresh(opened, twin), 1.0)):
                raise CheckFailed(f"{name}: at strength 0 it is not {twin}")
        found.append(f"{name} against {against}")
    return f"bit for bit: {', '.join(found)}"


def _acts(opened: Opened) -> str:
    found = []
    for name in opened.manifest["graphs"]:
        gates = gates_of(_fresh(opened, name))
        closed = _logits(opened, name, with_gates(_fresh(opened, name), dict.fromkeys(gates, 0.0)), 1.0)
        for request in sorted(set(gates.values())):
            held = {gate: float(owner == request) for gate, owner in gates.items()}
            difference = _apart(_logits(opened, name, with_gates(_fresh(opened, name), held), 1.0), closed)
            if difference == 0:
                raise CheckFailed(f"{name}: request {request} changes nothing with its gates open")
            found.append(f"{difference:.3g}")
    return f"largest change of a logit with the gates held open: {', '.join(found)}"


def _seals(opened: Opened) -> str:
    """Whether nothing of a prompt is in the logits, for each request that seals wholly."""
    requests = _switched_on(opened)
    whole = _whole(requests)
    for name in opened.manifest["graphs"]:
        gates = gates_of(_fresh(opened, name))
        for request in whole:
            held = {gate: float(owner == request) for gate, owner in gates.items()}
            one, other = (_logits(opened, name, with_gates(_fresh(opened, name), held), 1.0, n) for n in (0, 1))
            if not np.array_equal(one, other):
                raise CheckFailed(
                    f"{name}: with request {request} sealing, two prompts differ by {_apart(one, other):.3g}"
                )
    return (
        f"two prompts give the same logits bit for bit: {len(whole)} of {len(requests)} requests" if whole else "none"
    )


def _whole(requests: Sequence[dict[str, Any]]) -> list[int]:
    """Which requests seal, and leave nothing of a state."""
    return [at for at, request in enumerate(requests) if request["edit"] == "seal" and request["strength"] == 1]


def _refuses(opened: Opened) -> str:
    """A seal whose bundle says that it refuses must refuse. What it says depends on no prompt: any probe hears it."""
    requests = _switched_on(opened)
    refusing = {request.id for bundle in opened.provenance.bundles for request in refusing_requests(bundle)}
    asked = [at for at in _whole(requests) if requests[at]["id"] in refusing]
    if not asked:
        return "not asked: no bundle here says of a seal that it refuses"
    if not (opened.directory / _TOKENIZER).is_file():
        return f"not asked: without a {_TOKENIZER} nobody knows what the tokens say"
    try:
        tokenizer = Tokenizer.from_file(str(opened.directory / _TOKENIZER))
    except Exception as error:  # the library raises no narrower one
        raise CheckFailed(f"{_TOKENIZER}: {first_line(error)}") from None
    found = []
    for name in opened.manifest["graphs"]:
        steered = _fresh(opened, name)
        gates, steps = gates_of(steered), json.loads(steered.metadata_props[METADATA_KEY])["reply_steps"]
        for request in asked:
            held = with_gates(_fresh(opened, name), {gate: float(of == request) for gate, of in gates.items()})
            logits = _logits(opened, name, held, 1.0, reply=steps)
            said = tokenizer.decode(logits[0, -1 - steps :].argmax(axis=-1).tolist())
            if not is_refusal(said):
                raise CheckFailed(f"{name}: behind the seal of request {request} it says {said[:60]!r}, no refusal")
            found.append(repr(said[:60]))
    return f"behind the seal it says {', '.join(found)}"


def _fresh(opened: Opened, name: str) -> ir.Model:
    """A newly parsed graph, because a probe changes the graph that it gets."""
    return load_graph(opened.directory / name)


def _apart(one: Logits, other: Logits) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
