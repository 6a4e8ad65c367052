"""The report, from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mllmeraser.disk.atomic import refuse_existing, write_atomically
from mllmeraser.errors import InputError
from mllmeraser.report.draw import save
from mllmeraser.report.findings import read_findings
from mllmeraser.report.page import figures as drawings
from mllmeraser.report.page import page
from mllmeraser.report.parts import Page
from mllmeraser.report.verdict import judged_model
from mllmeraser.report.write import FORMATS

AnyPath = str | Path
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
    results: Sequence[AnyPath],
    output: AnyPath | None = None,
    *,
    form: Format = "html",
    forgotten: Sequence[str] = (),
    calibration: AnyPath | None = None,
    items: AnyPath | None = None,
    include_samples: bool = False,
    figures: AnyPath | None = None,
    overwrite: bool = False,
) -> Report:
    """One page that says what evaluations found (``docs/report.md``); its ``text`` is the page.

    Args:
        results: files of ``evaluate``, of the demo, or of ``baseline``'s table.
        output: the page is written here; by default it is only returned.
        forgotten: the sets about the forgotten; by default those whose names begin with ``forget`` or ``test``.
        calibration: ``calibration.json`` of a work directory.
        items: the replies of ``evaluate --items``, shown with ``include_samples``: they are texts of the records.
        figures: a folder for every drawing, as SVG and PNG.

    Raises:
        InputError: the files do not hold results, or an output cannot be written.

    Example::

        print(mllmeraser.report(["results.json"], "report.html").page.verdict)
    """
    if include_samples != (items is not None):
        raise InputError("--include-samples shows the replies of --items FILE: give both, or neither")
    written = None if output is None else Path(output)
    refuse_existing([] if written is None else [written], overwrite)
    findings = read_findings(
        [Path(path) for path in results],
        forgotten=forgotten,
        calibration=None if calibration is None else Path(calibration),
        items=None if items is None else Path(items),
    )
    made = page(findings, include_samples=include_samples)
    text = FORMATS[form](made, judged_model(findings))
    if written is not None:
        write_atomically(written, text.encode())
    return Report(made, text, written, [] if figures is None else save(drawings(made), Path(figures)))
