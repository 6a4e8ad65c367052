"""The parts of Vega-Lite (https://vega.github.io/vega-lite/docs) that the drawings share."""

from __future__ import annotations

from collections.abc import Sequence

from mllmeraser.report.parts import Spec


def marks(kind: str, rows: Sequence[Spec], where: Spec, **style: object) -> Spec:
    """One mark of this kind (``point``, ``bar``, …) for every row; ``where`` gives the field of each channel."""
    return {"data": {"values": rows}, "mark": {"type": kind, **style}, "encoding": where}


def quantity(field: str, **more: object) -> Spec:
    """A channel that shows a number of the row."""
    return {"field": field, "type": "quantitative", **more}


def category(field: str, **more: object) -> Spec:
    """A channel that shows a name of the row."""
    return {"field": field, "type": "nominal", **more}


def rank(field: str, **more: object) -> Spec:
    """A channel that shows one of a few steps, in order."""
    return {"field": field, "type": "ordinal", **more}


def if_so(field: str, value: str, otherwise: str) -> Spec:
    """A channel with two values, chosen by a field that is true or false."""
    return {"condition": {"test": f"datum.{field}", "value": value}, "value": otherwise}
