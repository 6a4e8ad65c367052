"""The documentation builds without a warning: every page is in the index, every link and call is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "doctrees"]
    done = subprocess.run([*build, DOCS, tmp_path / "html"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mllmeraser.api.compute" in (tmp_path / "html" / "api.html").read_text(encoding="utf-8")
    assert "--gate-shape" in (tmp_path / "html" / "cli.html").read_text(encoding="utf-8")
