"""The committed parts of the second model, and the checkpoint that they and the language model make."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from transformers import LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from mllmeraser.demo.architecture import build_processor, save_checkpoint
from mllmeraser.demo.smollm2.architecture import build_model, merge
from mllmeraser.demo.smollm2.chat import CHAT_TEMPLATE
from mllmeraser.demo.smollm2.language_model import load_language_model, weights_file
from mllmeraser.errors import MllmEraserError

PARTS = Path(__file__).parent / "parts"
_FILES = ("tower", "projector", "adapter")


def check() -> None:
    """Stop unless the model can be assembled here.

    Raises:
        InputError: the language model is not installed.
        MllmEraserError: there are no parts.
    """
    weights_file()
    if not all((PARTS / f"{name}.safetensors").is_file() for name in _FILES):
        call = "python -m mllmeraser.demo.train --model smollm2"
        raise MllmEraserError(f"this installation carries no parts of the second model; train them: {call}")


def assemble(
    language_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, parts: Path
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The whole model, in bf16, and its processor.

    Args:
        parts: a directory with a file for each of tower, projector and adapter.
    """
    model = build_model(language_model, tokenizer)
    tower, projector, adapter = (load_file(parts / f"{name}.safetensors") for name in _FILES)
    model.model.vision_tower.load_state_dict(tower)
    model.model.multi_modal_projector.load_state_dict(projector)
    merge(model, adapter)
    return model.bfloat16().eval(), build_processor(tokenizer, CHAT_TEMPLATE)


def write_base(directory: Path) -> None:
    """Assemble the checkpoint from the committed parts and write it; it raises as `check` does."""
    check()
    model, processor = assemble(*load_language_model(), PARTS)
    save_checkpoint(model, processor, directory)
