"""How every drawing looks: one accent colour, greys, thin lines.

The page recolours these few colours for dark screens by matching them in the SVG,
so nothing else may be used. The accent stands for what is judged, grey for what it is compared with: safe for every
kind of colour vision, and in print.
"""

from __future__ import annotations

from typing import Any

from mllmeraser.report.parts import Spec

INK, MUTED, LINE, ACCENT, PLAIN = "#1b1f24", "#5f6771", "#d9dde2", "#0a66c2", "#9aa2ac"
WIDTH = 320  # natural size is that of a telephone; wider screens put several beside one another
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
    """The whole drawing in the look of the report."""
    return {**chart, "config": _LOOK}


def is_ours(method: str) -> bool:
    """Whether a method of a table is this tool's own, which stands out among the others."""
    return method.lower() in ("steered", "ours", "mllmeraser")
