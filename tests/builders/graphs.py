"""Exported decoders, bundles for them, and the PyTorch model beside ONNX Runtime, forward by forward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from builders import bundles, tiny
from builders.bundles import Part
from builders.checkpoints import identity, make_base

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.exporter.base import read_base
from mllmeraser.exporter.onnx.bundles import graph_requests
from mllmeraser.exporter.onnx.export import export_base
from mllmeraser.exporter.onnx.insert import Toggle, insert_steering
from mllmeraser.exporter.onnx.runtime import Cache, DecoderSession
from mllmeraser.inference.source import Source

Array = npt.NDArray[Any]
DECODER = "onnx/decoder_model_merged.onnx"
TWIN = "onnx/decoder_model_merged_base.onnx"  # the decoder as it was, kept beside the steered one
HEAD_SIZE = tiny.HIDDEN // 4
TOLERANCE = 5e-5  # two frameworks, fp32, logits of a range of 12


def export_tiny(family: tiny.Family, folder: Path) -> Path:
    """The export of ``tiny.model(family)``, its base beside it in ``base``."""
    base = make_base(folder / "base", family)
    (folder / "export").mkdir()
    export_base(read_base(Source(base)), folder / "export", "fp32", lambda line: None)
    return folder / "export"


def bundle(part: Part, request_id: str = "r0", family: tiny.Family = "llava") -> Bundle:
    """The bundle of one request made by ``tiny.steering``, for the tiny base of this family."""
    return bundles.bundle(identity(family), part, request_id)


def steered_graph(decoder: Path, *parts: Part, toggle: Toggle = "constant") -> bytes:
    """The decoder graph with these requests, weights inside."""
    model = ir.load(decoder)
    insert_steering(model, graph_requests([bundle(part, f"r{index}") for index, part in enumerate(parts)]), toggle)
    return as_bytes(model)


def as_bytes(model: ir.Model) -> bytes:
    """A graph with its weights inside."""
    ir.external_data.load_to_model(model)
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


@dataclass
class Forward:
    """What one forward of the PyTorch model was given above its decoder, and the logits it gave."""

    feeds: dict[str, Array]
    logits: Array  # (b, s, v)


def record(model: Any, **inputs: Any) -> list[Forward]:
    """Greedy generation of the PyTorch model, forward by forward; with ``max_new_tokens`` 0 one plain forward."""
    steps = inputs.pop("max_new_tokens", 6)
    given: list[dict[str, Array]] = []
    logits: list[Array] = []

    def before(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        embeds, positions = kwargs["inputs_embeds"], kwargs["position_ids"]
        rows = embeds.shape[0]
        if positions.ndim == 3:
            positions = positions[-3:]  # the text's own positions come first of four
        shape = (3, rows, -1) if positions.ndim == 3 else (rows, -1)
        given.append({"inputs_embeds": embeds.numpy(), "position_ids": positions.expand(*shape).numpy()})

    def after(_module: Any, _args: Any, output: Any) -> None:
        logits.append(output.logits.numpy())

    handles = [
        model.get_decoder().register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after),
    ]
    try:
        with torch.no_grad():
            if steps:
                model.generate(**inputs, max_new_tokens=steps, do_sample=False)
            else:
                model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    mask = inputs["attention_mask"].numpy()
    seen = mask.shape[1] - given[0]["inputs_embeds"].shape[1]  # in the cache before
    for feeds in given:
        seen += feeds["inputs_embeds"].shape[1]
        more = np.ones((mask.shape[0], seen - mask.shape[1]), mask.dtype)
        feeds["attention_mask"] = np.concatenate([mask, more], axis=1)
    return [Forward(feeds, out) for feeds, out in zip(given, logits, strict=True)]


def replay(graph: bytes | Path, forwards: list[Forward], strength: float | None = None) -> list[Array]:
    """The logits of a graph for the same forwards, its cache handed on."""
    session = DecoderSession(graph, HEAD_SIZE)
    cache: Cache = session.empty_cache(forwards[0].feeds["inputs_embeds"].shape[0])
    found = []
    for forward in forwards:
        feeds = dict(forward.feeds)
        if strength is not None:
            feeds["steering_strength"] = np.array([strength], np.float32)
        logits, cache = session.forward(feeds, cache)
        found.append(logits)
    return found


def assert_equal(
    found: list[Array], expected: list[Forward], real: Array | None = None, atol: float = TOLERANCE
) -> None:
    """Logits within the tolerance, and the same token at every position that holds one.

    Args:
        real: the columns of the first forward that hold a token, (b, s); null: only the last is compared.
    """
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        width = theirs.logits.shape[1]  # generate asks for the last column only
        here, there = ours[:, -width:], theirs.logits
        if index == 0 and real is not None:
            here, there = here[real[:, -width:]], there[real[:, -width:]]
        np.testing.assert_allclose(here, there, rtol=0, atol=atol)
        np.testing.assert_array_equal(here.argmax(-1), there.argmax(-1))


def with_strength(part: Part, strength: float) -> Part:
    """The same request with another strength."""
    section, tensors = part
    return {**section, "requests": [{**section["requests"][0], "strength": strength}]}, tensors
