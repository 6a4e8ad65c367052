"""What commands say when they are done: a document or lines on stdout, what comes next on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.markup import escape

from mllmeraser.console import console

if TYPE_CHECKING:
    from mllmeraser.exporter.onnx.directory import SteeredDirectory


def report(as_json: bool, document: Mapping[str, Any], lines: Iterable[str]) -> None:
    """The result on stdout: one JSON document, or lines for a person."""
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))


def report_graphs(as_json: bool, steered: SteeredDirectory, base: str) -> None:
    """What `export --format onnx` and `onnx-steer` wrote; what is lost is said on stderr too."""
    report(as_json, steered.document(), steered.lines())
    for warning in steered.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    suggest(f"mllmeraser verify {steered.output} --base {base}")


def suggest(command: str) -> None:
    """The last line on stderr names what comes naturally next."""
    console.print(f"[dim]next:[/] {escape(command)}", soft_wrap=True)
