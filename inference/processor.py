"""The processor of a model: chat template, tokenizer and picture processing.

Families that can watch videos (Qwen2.5-VL among them) have a video processor, which needs torchvision. Without
torchvision transformers refuses their whole processor. We never show a video, so we then build the processor from its
other parts, read from the model's own files; the empty base class of all video processors stands in for the missing
one. Words and pictures are encoded the same (pictures by transformers' PIL code, which differs from its torchvision
code by rounding).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor, AutoTokenizer, ProcessorMixin

# Not from transformers itself, whose 5.5 hides the class where torchvision is missing.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available, logging
from transformers.video_processing_utils import BaseVideoProcessor


def load_processor(directory: Path, model_type: str) -> ProcessorMixin:
    """The processor in a model's directory; no code that lies there is run.

    Args:
        model_type: the family of the base.

    Raises:
        ValueError, OSError, ImportError: as transformers does, if a file is missing or damaged.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of an exported model_type, which does not concern it
    try:
        return _load(directory, model_type)
    finally:
        logging.set_verbosity(verbosity)


def _load(directory: Path, model_type: str) -> ProcessorMixin:
    if not is_torchvision_available():
        processor_class = getattr(transformers, str(PROCESSOR_MAPPING_NAMES.get(model_type)), None)
        if processor_class is not None and "video_processor" in processor_class.get_attributes():
            return _without_videos(processor_class, directory)
    return AutoProcessor.from_pretrained(directory, trust_remote_code=False)


def pictures_only(processor_class: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The class, but it accepts anything as its video processor.

    transformers looks for the required type where torchvision would have put it, so it rejects even the base class of
    all video processors.
    """

    def check(self: ProcessorMixin, argument_name: str, argument: object) -> object:
        if argument_name == "video_processor":
            return type(argument)
        return processor_class.check_argument_for_proper_class(self, argument_name, argument)

    return type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": check})


def _without_videos(processor_class: Any, directory: Path) -> ProcessorMixin:
    settings, _ = processor_class.get_processor_dict(directory)
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(directory, trust_remote_code=False),
        "tokenizer": AutoTokenizer.from_pretrained(directory, trust_remote_code=False),
        "video_processor": BaseVideoProcessor(),
    }
    ordered = [parts[name] for name in processor_class.get_attributes()]
    return pictures_only(processor_class).from_args_and_dict(ordered, settings)
