"""Makes a report, from results files to one page."""

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
        """The verdict, and where the page was written."""
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
    """Write one page about what evaluations found (``docs/report.md``). The report's ``text`` is the page.

    Args:
        results: results files of ``evaluate``, of the demo, or with a table of methods.
        output: a file for the page; by default it is only returned.
        form: HTML, Markdown or JSON.
        forgotten: the sets about the forgotten; by default those whose names begin with ``forget`` or ``test``.
        calibration: ``calibration.json`` of a work directory, or what ``compute --json`` printed.
        items: a file of ``evaluate --items``, whose replies are shown with ``include_samples``.
        include_samples: show questions and replies side by side; they are texts of the records.
        figures: a folder for every drawing, as SVG and PNG.
        overwrite: replace an existing ``output``.

    Raises:
        InputError: a file does not hold results, or an output cannot be written.

    Example::

        print(mllmeraser.report(["results.json"], "report.html").page.verdict)
    """
    if include_samples != (items is not None):
        raise InputError("--include-samples shows the replies of --items FILE: give both, or neither")
    written = None if output is None else Path(output)
    if written is not None:
        file_target(written, overwrite)
    if figures is not None and Path(figures).exists() and not Path(figures).is_dir():
        raise InputError(f"--figures {figures}: is a file; give a folder")
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
