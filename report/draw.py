"""Draws Vega-Lite documents as SVG and PNG on this machine, without a browser, a network or fonts to install."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import vl_convert

from mllmeraser.disk.atomic import write_atomically
from mllmeraser.report.parts import Figure, Spec

_VEGA_LITE = "6.1"  # fixed, so that a newer vl-convert draws the same
_SCALE = 3  # PNG: three pixels a point, enough for print


def svg(spec: Spec) -> str:
    """The drawing as an SVG file."""
    return str(vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=_VEGA_LITE))


def inline_svg(figure: Figure, key: str) -> str:
    """The drawing as an SVG inside an HTML page. It fills its place, and screen readers find its name and description.

    ``key`` is unique on the page and names the parts of this drawing.
    """
    found = re.search(r"<svg\b[^>]*\bviewBox=\"0 0 ([\d.]+) ([\d.]+)\"[^>]*>(.*)</svg>", svg(figure.spec), re.S)
    assert found is not None
    width, height, body = found[1], found[2], found[3]
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{1.25 * float(width):.0f}px" role="img" '
        f'aria-labelledby="{key}-title {key}-description"><title id="{key}-title">{escape(figure.title)}</title>'
        f'<desc id="{key}-description">{escape(figure.description)}</desc><g aria-hidden="true">{body}</g></svg>'
    )


def save(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write every drawing as SVG and as PNG, for a paper; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in figures:
        stem = re.sub(r"[^\w.-]+", "-", figure.name)
        opaque = json.dumps({**figure.spec, "background": "white"})
        for suffix, made in (
            (".svg", svg(figure.spec).encode()),
            (".png", bytes(vl_convert.vegalite_to_png(opaque, vl_version=_VEGA_LITE, scale=_SCALE))),
        ):
            path = folder / f"{stem}{suffix}"
            write_atomically(path, made)
            written.append(path)
    return written
