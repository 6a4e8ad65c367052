"""Writes the page as one text: HTML, Markdown or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mllmeraser.report.draw import inline_svg
from mllmeraser.report.page import figures
from mllmeraser.report.parts import Page, Section, Table

SCHEMA = 1


def html(page: Page, judged: str | None) -> str:
    """The page as one HTML file: it holds its styles and drawings, has no script and loads nothing.

    ``judged`` is the model whose rows the tables highlight.
    """
    drawings = {figure.name: inline_svg(figure, f"figure-{i}") for i, figure in enumerate(figures(page))}
    environment = _environment(autoescape=True)
    style = environment.loader.get_source(environment, "style.css")[0]  # type: ignore[union-attr]
    return environment.get_template("page.html.jinja").render(page=page, drawings=drawings, style=style, judged=judged)


def markdown(page: Page, judged: str | None) -> str:
    """The words and all numbers as Markdown; drawings become tables."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = _escaped
    shown = [{**vars(section), "shown": _tables(section)} for section in page.sections]
    text = environment.get_template("page.md.jinja").render(page={**vars(page), "sections": shown})
    return re.sub(r"\n{3,}", "\n\n", text)


def document(page: Page, judged: str | None) -> str:
    """The words and all numbers as one JSON document (docs/json.md)."""
    sections = [
        {
            "name": section.name,
            "title": section.title,
            "words": list(section.words),
            "tables": [_plain(table) for table in _tables(section)],
            "notes": list(section.notes),
        }
        for section in page.sections
    ]
    answers = [
        {
            "set": a.set,
            "question": a.question,
            "replies": [dict(zip(("model", "reply", "outcome"), r, strict=True)) for r in a.replies],
        }
        for a in page.answers
    ]
    made = {
        "schema": SCHEMA,
        "model": judged,
        "verdict": page.verdict,
        "sentences": list(page.sentences),
        "sections": sections,
    }
    return json.dumps({**made, **({"answers": answers} if answers else {})}, indent=2, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[Page, str | None], str]] = {"html": html, "md": markdown, "json": document}


def _tables(section: Section) -> list[Table]:
    return [figure.numbers for figure in section.figures] + list(section.tables)


def _plain(table: Table) -> dict[str, Any]:
    return {"caption": table.caption, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}


def _escaped(text: str) -> str:
    """Text for one Markdown line or table cell, its special characters escaped."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(text.split()))


def _environment(autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("mllmeraser", "report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )
