"""Make a multimodal language model refuse questions about a person, at inference time (MLLMEraser, arXiv 2510.04217).

Every command is one call: ``import mllmeraser; mllmeraser.export(…)``. A call is imported when it is first used,
because torch and transformers take seconds to import.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Every public call, and the module it is written in.
_CALLS = {
    "baseline": "api",
    "claim": "removals.claims.claim",
    "compute": "api",
    "evaluate": "evaluation.evaluation",
    "export": "exporter.directory",
    "export_onnx": "exporter.onnx.api",
    "import_official": "api",
    "inspect": "exporter.inspect",
    "interference": "api",
    "load_bundle": "bundle.bundle",
    "needs": "api",
    "onnx_steer": "exporter.onnx.api",
    "push": "exporter.hub",
    "records": "api",
    "report": "report.report",
    "requests": "removals.ledger",
    "sign": "exporter.signing",
    "steer": "steering.in_process",
    "verify": "exporter.verify",
}
__all__ = ["__version__", *_CALLS]

if TYPE_CHECKING:  # the same, for type checkers and editors
    from mllmeraser.api import baseline as baseline
    from mllmeraser.api import compute as compute
    from mllmeraser.api import import_official as import_official
    from mllmeraser.api import interference as interference
    from mllmeraser.api import needs as needs
    from mllmeraser.api import records as records
    from mllmeraser.bundle.bundle import load_bundle as load_bundle
    from mllmeraser.evaluation.evaluation import evaluate as evaluate
    from mllmeraser.exporter.directory import export as export
    from mllmeraser.exporter.hub import push as push
    from mllmeraser.exporter.inspect import inspect as inspect
    from mllmeraser.exporter.onnx.api import export_onnx as export_onnx
    from mllmeraser.exporter.onnx.api import onnx_steer as onnx_steer
    from mllmeraser.exporter.signing import sign as sign
    from mllmeraser.exporter.verify import verify as verify
    from mllmeraser.removals.claims.claim import claim as claim
    from mllmeraser.removals.ledger import requests as requests
    from mllmeraser.report.report import report as report
    from mllmeraser.steering.in_process import steer as steer


def _call(name: str) -> Callable[..., Any]:
    call: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{_CALLS[name]}"), name)
    return call


def __getattr__(name: str) -> Any:
    if name not in _CALLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _call(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_CALLS})


class _Package(ModuleType):
    """The package. Two calls have the names of rooms, and an import would put the room in the call's place."""

    @property
    def records(self) -> Callable[..., Any]:
        """The call, even after the room has been imported."""
        return _call("records")

    @records.setter
    def records(self, room: ModuleType) -> None:
        """Keep the call: the room is found by its full name, as in ``from mllmeraser.records.read import …``."""

    @property
    def report(self) -> Callable[..., Any]:
        """The call, even after the room has been imported."""
        return _call("report")

    @report.setter
    def report(self, room: ModuleType) -> None:
        """Keep the call: the room is found by its full name, as in ``from mllmeraser.report.page import page``."""


sys.modules[__name__].__class__ = _Package
