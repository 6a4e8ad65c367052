"""The calls that the command line makes; importable without the extra ``onnx``, which is asked for when they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mllmeraser.errors import InputError, MllmEraserError

if TYPE_CHECKING:
    from mllmeraser.bundle.bundle import Bundle
    from mllmeraser.exporter.onnx.directory import SteeredDirectory
    from mllmeraser.inference.source import Source

_PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        InputError: one is missing.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InputError(f"the package {missing[0]} is not installed; install with: pip install 'mllmeraser[onnx]'")


def onnx_steer(
    model_dir: Path,
    bundles: Sequence[Bundle],
    output: Path,
    *,
    toggle: Literal["constant", "input"] = "constant",
    link: Literal["auto", "copy", "hard", "sym"] = "auto",
    overwrite: bool = False,
) -> SteeredDirectory:
    """Steer the decoder graphs of a directory, without torch.

    See :func:`mllmeraser.exporter.onnx.directory.steer_directory`.
    """
    require_onnx()
    from mllmeraser.exporter.onnx.directory import steer_directory

    with _disk_errors(output):
        return steer_directory(model_dir, bundles, output, toggle=toggle, link=link, overwrite=overwrite)


def onnx_export(
    source: Source,
    bundles: Sequence[Bundle],
    output: Path,
    *,
    toggle: Literal["constant", "input"] = "constant",
    precision: Literal["fp32", "fp16"] = "fp32",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> SteeredDirectory:
    """Export a base checkpoint as steered graphs; see :func:`mllmeraser.exporter.onnx.export.export_onnx`."""
    require_onnx()
    from mllmeraser.exporter.onnx.export import export_onnx

    with _disk_errors(output):
        return export_onnx(
            source, bundles, output, toggle=toggle, precision=precision, overwrite=overwrite, progress=progress
        )


def check_onnx_export(source: Source, output: Path, overwrite: bool) -> None:
    """What :func:`onnx_export` would raise about base and output, before the long work that comes first."""
    require_onnx()
    from mllmeraser.exporter.onnx.export import check_export

    check_export(source, output, overwrite)


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    """A full or failing disk in one line."""
    try:
        yield
    except OSError as error:
        where = output if error.filename is None else error.filename
        raise MllmEraserError(f"{where}: {error.strerror}; nothing was written, mend that and run it again") from error
