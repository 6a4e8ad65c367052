"""A system prompt that names whom to forget, written into the chat template of an otherwise unchanged checkpoint.

Every client that uses this template puts the system prompt before the user's turn. The shipped files show the names to
everybody, and a client with another template never says it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import ProcessorMixin

from mllmeraser.errors import InputError


def instructed_template(processor: ProcessorMixin, text: str, names: Sequence[str]) -> str:
    """The processor's chat template with a system message before all others.

    Raises:
        InputError: there are no names or no template, or the template ignores system messages.
    """
    if not names:
        raise InputError("a system prompt needs the names of whom to forget; give --names FILE, one a line")
    template = processor.chat_template or processor.tokenizer.chat_template
    if not isinstance(template, str):
        raise InputError("the processor has no chat template, so there is nowhere to put a system prompt")
    said = text.replace("{names}", ", ".join(names))
    message = json.dumps([{"role": "system", "content": [{"type": "text", "text": said}]}], ensure_ascii=False)
    # JSON strings, lists and objects are also Jinja literals.
    instructed = f"{{%- set messages = {message} + messages -%}}{template}"
    turn = [{"role": "user", "content": [{"type": "text", "text": "Who is this?"}]}]
    if said not in str(processor.apply_chat_template(turn, chat_template=instructed, tokenize=False)):
        raise InputError("the chat template of this base has no place for a system message")
    return instructed


def read_names(path: Path) -> list[str]:
    """The names in a text file, one on each line.

    Raises:
        InputError: the file does not exist or is not UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise InputError(f"{path}: no such file; give the names of whom to forget, one a line") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return [line.strip() for line in lines if line.strip()]
