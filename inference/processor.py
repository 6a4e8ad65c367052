"""The processor of a checkpoint: chat template, tokenizer and picture processing.

Families that can watch videos, Qwen2.5-VL among them, need torchvision for their video processor, and transformers
refuses the whole processor without it. No video is ever shown here, so where torchvision is missing the processor is
put together from its other parts, of the checkpoint's own files; a video would then be an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available
from transformers.video_processing_utils import BaseVideoProcessor


def load_processor(directory: Path, model_type: str) -> ProcessorMixin:
    """The processor in a checkpoint's directory; no code that lies there is run.

    Args:
        model_type: the family of the base.

    Raises:
        ValueError, OSError, ImportError: as transformers does, if a file is missing or damaged.
    """
    if not is_torchvision_available():
        processor_class = getattr(transformers, str(PROCESSOR_MAPPING_NAMES.get(model_type)), None)
        if processor_class is not None and "video_processor" in processor_class.get_attributes():
            return _without_videos(processor_class, directory)
    return AutoProcessor.from_pretrained(directory, trust_remote_code=False)


def _without_videos(processor_class: Any, directory: Path) -> ProcessorMixin:
    settings, _ = processor_class.get_processor_dict(directory)
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(directory, trust_remote_code=False),
        "tokenizer": AutoTokenizer.from_pretrained(directory, trust_remote_code=False),
        "video_processor": BaseVideoProcessor(),
    }
    ordered = [parts[name] for name in processor_class.get_attributes()]
    return processor_class.from_args_and_dict(ordered, settings)
