"""How a command prints its result: a document or lines on stdout, and the next command on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.markup import escape

from mllmeraser.console import console
from mllmeraser.errors import escaped

if TYPE_CHECKING:
    from mllmeraser.exporter.onnx.directory import SteeredDirectory


def report(as_json: bool, document: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print the result on stdout: one JSON document, or lines for a person."""
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(map(escaped, lines)))


def report_graphs(as_json: bool, steered: SteeredDirectory, base: str) -> None:
    """Print what `export --format onnx` or `onnx-steer` wrote; warnings go to stderr."""
    report(as_json, steered.document(), steered.lines())
    for warning in steered.warnings:
        console.print(f"[yellow]warning:[/] {escape(escaped(warning))}", soft_wrap=True)
    suggest(f"mllmeraser verify {steered.output} --base {base}")


def suggest(command: str) -> None:
    """Print the natural next command, as the last line on stderr."""
    console.print(f"[dim]next:[/] {escape(escaped(command))}", soft_wrap=True)
