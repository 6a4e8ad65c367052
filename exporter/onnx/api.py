"""Steered graphs for ONNX Runtime and transformers.js: two calls, which need the extra ``onnx``.

The module can be imported without the extra; a call raises if it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mllmeraser.bundle.budget import together
from mllmeraser.bundle.bundle import Bundle, load_bundles
from mllmeraser.console import console
from mllmeraser.disk.link import Link
from mllmeraser.disk.staging import disk_errors
from mllmeraser.errors import InputError
from mllmeraser.inference.source import Source, resolve

if TYPE_CHECKING:
    from mllmeraser.exporter.onnx.directory import SteeredDirectory

_PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        InputError: one is missing.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InputError(f"the package {missing[0]} is not installed; install with: pip install 'mllmeraser[onnx]'")


def onnx_steer(
    model_dir: str | Path,
    bundles: Sequence[str | Path | Bundle],
    output: str | Path,
    *,
    toggle: Literal["constant", "input"] = "constant",
    link: Link = "auto",
    overwrite: bool = False,
) -> SteeredDirectory:
    """Insert the steering into every decoder graph of a directory. It needs no torch and reads no weights.

    Args:
        model_dir: graphs with a cache, as ``optimum``, ``onnxruntime-genai`` or :func:`export_onnx` make them.
        bundles: files, or the ``.bundle`` of what :func:`compute` returned. Each becomes a request or several.
        output: the directory of the steered graphs. It appears whole or not at all.
        toggle: how a graph is switched off. ``constant``: a twin graph beside it is the base's. ``input``: the graph
            needs an input ``steering_strength`` (1,) fp32, where 1 steers and 0 is the base.
        link: how weights, encoder and embeddings come in: ``auto`` (share disk blocks, else copy), ``copy``, ``hard``
            (onnxruntime reads it, ``onnx.load`` does not), or ``sym`` (the directory then works on this machine only).
        overwrite: replace a directory that is not empty.

    Raises:
        InputError: the extra is missing, a graph is not understood or does not fit the bundles, or the output cannot be
            used; nothing was written.
        MllmEraserError: the disk is full or fails; nothing is left behind.

    Example::

        mllmeraser.onnx_steer("graphs", ["request.safetensors"], "steered-graphs")
    """
    require_onnx()
    from mllmeraser.exporter.onnx.directory import steer_directory

    with disk_errors(Path(output)):
        return steer_directory(
            Path(model_dir),
            together(load_bundles(bundles)),
            Path(output),
            toggle=toggle,
            link=link,
            overwrite=overwrite,
        )


def export_onnx(
    base: str | Path | Source,
    bundles: Sequence[str | Path | Bundle],
    output: str | Path,
    *,
    toggle: Literal["constant", "input"] = "constant",
    overwrite: bool = False,
) -> SteeredDirectory:
    """Export a base checkpoint as steered graphs in fp32 (``docs/onnx.md``).

    Args:
        base: the model as it was: a directory, or a Hub id ``org/name[@revision]``. Its family must be LLaVA-1.5 or
            Qwen2.5-VL.
        bundles: files, or the ``.bundle`` of what :func:`compute` returned. Each becomes a request or several.
        output: the directory of the steered graphs. It appears whole or not at all.
        toggle: how a graph is switched off. ``constant``: a twin graph beside it is the base's. ``input``: the graph
            needs an input ``steering_strength`` (1,) fp32, where 1 steers and 0 is the base.
        overwrite: replace a directory that is not empty.

    Raises:
        InputError: the extra is missing, or base, bundles or output cannot be used; nothing was written.
        MllmEraserError: the disk is full or fails; nothing is left behind.

    Example::

        mllmeraser.export_onnx("org/name", ["request.safetensors"], "steered-graphs")
    """
    require_onnx()
    from mllmeraser.exporter.onnx import export

    source = base if isinstance(base, Source) else resolve(base)
    with disk_errors(Path(output)):
        return export.export_onnx(
            source,
            together(load_bundles(bundles)),
            Path(output),
            toggle=toggle,
            overwrite=overwrite,
            progress=console.print,
        )


def check_onnx_export(source: Source, output: Path, overwrite: bool) -> None:
    """Raise what :func:`export_onnx` would raise about base and output; for use before a long computation."""
    require_onnx()
    from mllmeraser.exporter.onnx.export import check_export

    check_export(source, output, overwrite)
