"""The report, from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.target import file_target
from mllmeraser.errors import InputError
from mllmeraser.report.draw import save
from mllmeraser.report.findings import read_findings
from mllmeraser.report.page import figures, page
from mllmeraser.report.parts import Page
from mllmeraser.report.verdict import judged_model
from mllmeraser.report.write import FORMATS

Format = Literal["html", "md", "json"]


@dataclass(frozen=True)
class Report:
    """The page, as parts and as text, and the files that were written."""

    page: Page
    text: str
    output: Path | None
    figures: Sequence[Path]

    def document(self) -> dict[str, Any]:
        """The JSON document of ``report --json`` (docs/json.md)."""
        return {
            "schema": 1,
            "output": None if self.output is None else str(self.output),
            "verdict": self.page.verdict,
            "sentences": list(self.page.sentences),
            "figures": [str(path) for path in self.figures],
        }

    def lines(self) -> list[str]:
        """The verdict, and where the page lies."""
        written = [f"Written to {self.output}."] if self.output else []
        return [self.page.verdict, *(f"  {sentence}" for sentence in self.page.sentences), *written]


def report(
    results: Sequence[Path],
    output: Path | None = None,
    *,
    form: Format = "html",
    forgotten: Sequence[str] = (),
    calibration: Path | None = None,
    items: Path | None = None,
    include_samples: bool = False,
    figures_folder: Path | None = None,
    overwrite: bool = False,
) -> Report:
    """Read the results, and write the page and, if a folder is given, its drawings as SVG and PNG.

    Raises:
        InputError: the files do not hold results, or an output cannot be written.
    """
    if include_samples != (items is not None):
        raise InputError("--include-samples shows the replies of --items FILE: give both, or neither")
    if output is not None:
        file_target(output, overwrite)
    findings = read_findings(results, forgotten=forgotten, calibration=calibration, items=items)
    made = page(findings, include_samples=include_samples)
    text = FORMATS[form](made, judged_model(findings))
    if output is not None:
        write_atomically(output, text.encode())
    written = [] if figures_folder is None else save(figures(made), figures_folder)
    return Report(made, text, output, written)
