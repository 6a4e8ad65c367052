"""The look of every drawing: one accent colour, greys, thin lines.

The page finds these colours in the SVG and changes them for dark screens, so a drawing may use no others. The accent
marks what is judged, grey marks what it is compared with. Readers with any colour vision can tell the two apart, and so
can readers of a print.
"""

from __future__ import annotations

from typing import Any

from mllmeraser.report.parts import Spec

INK, MUTED, LINE, ACCENT, PLAIN = "#1b1f24", "#5f6771", "#d9dde2", "#0a66c2", "#9aa2ac"
WIDTH = 320  # the width of a telephone; a wider screen shows several drawings side by side
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
PERCENT = {"domain": [0, 100], "nice": False}
LEGEND = {"orient": "bottom", "title": None, "columnPadding": 24}
_LOOK = {
    "font": FONT,
    "background": "transparent",
    "padding": 4,
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "titlePadding": 8,
        "labelPadding": 4,
        "tickSize": 4,
    },
    "legend": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 11, "titleFontSize": 11, "symbolSize": 60},
    "text": {"color": INK, "fontSize": 11},
}


def finished(chart: Spec) -> dict[str, Any]:
    """The drawing with the report's look."""
    return {**chart, "config": _LOOK}


def is_ours(method: str) -> bool:
    """Whether a method of a table is this tool's own, which the drawing highlights."""
    return method.lower() in ("steered", "ours", "mllmeraser")
