"""Make a multimodal language model stop knowing somebody, at inference time (MLLMEraser, arXiv 2510.04217)."""

from mllmeraser import api
from mllmeraser.api import *  # noqa: F403

__version__ = "0.1.0"
__all__ = [*api.__all__, "__version__"]
