"""Make a multimodal language model stop knowing somebody, at inference time (MLLMEraser, arXiv 2510.04217)."""

__version__ = "0.1.0"
