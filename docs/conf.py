"""Documentation of mllmeraser: `sphinx-build -W docs build/docs` (`pip install 'mllmeraser[docs]'`)."""

from __future__ import annotations

import mllmeraser

project = "mllmeraser"
author = "The mllmeraser team"
copyright = "The mllmeraser team, Apache-2.0"
version = release = mllmeraser.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Links to files of the repository, which the pages also serve on their own.
suppress_warnings = ["myst.xref_missing"]
exclude_patterns = ["demo-onnx"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_display_short_literal_types = True

html_theme = "furo"
html_title = "mllmeraser"
