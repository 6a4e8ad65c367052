"""From a user's turn to tensors, by the chat template of the model's own processor; every stage does it this way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from mllmeraser.errors import InputError, first_line
from mllmeraser.records.pictures import opened
from mllmeraser.records.prompts import Prompt

if TYPE_CHECKING:
    from mllmeraser.inference.loading import Checkpoint

# These grow with the sequence; everything else that a processor returns describes pictures.
SEQUENCE_KEYS = {"input_ids": None, "attention_mask": 0, "mm_token_type_ids": 0}
IGNORED_KEYS = ("token_type_ids",)
_RENDERED = 1024
RAW_IMAGE = "<image>"
TWO_TURNS = Prompt("the second turn", None, (("the first turn", "a reply"),))


def render(processor: ProcessorMixin, prompt: Prompt, reply: str | None = None) -> str:
    """The text of a conversation up to where the assistant speaks, or up to the end of its ``reply``.

    Raises:
        InputError: the tokenizer has no chat template, the template loses the user's words, or a raw prompt and this
            processor mark pictures differently.
    """
    if prompt.reply_start:
        plain = prompt._replace(reply_start="")
        if reply is not None:
            return render(processor, plain, f"{prompt.reply_start} {reply}")
        return render(processor, plain) + continuation(processor, plain, prompt.reply_start)
    if prompt.raw:
        if prompt.pictures and processor.image_token != RAW_IMAGE:
            raise InputError(
                f"a raw prompt marks its pictures with {RAW_IMAGE}, this processor with {processor.image_token}; "
                "use a protocol that goes by the chat template, such as mllmeraser"
            )
        return prompt.text if reply is None else f"{prompt.text}{'' if prompt.text[-1:].isspace() else ' '}{reply}"
    messages: list[dict[str, Any]] = []
    if prompt.system:
        messages.append({"role": "system", "content": [{"type": "text", "text": prompt.system}]})
    for turn, (asked, replied) in enumerate((*prompt.earlier, (prompt.text, reply))):
        shown = [] if turn else [{"type": "image"} for _ in prompt.pictures]
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": asked}]})
        if replied is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": replied}]})
    try:
        text = str(processor.apply_chat_template(messages, add_generation_prompt=reply is None, tokenize=False))
    except Exception as error:  # a template is code of the base's: it raises whatever it meets
        raise InputError(
            f"the processor has no usable chat template ({first_line(error)}); give one that takes content as a list "
            "of parts, such as the chat_template.jinja of the base's publisher"
        ) from None
    if prompt.text.strip() not in text or prompt.system.strip() not in text:
        raise InputError(
            "the chat template of the processor drops or rewrites a turn; give a checkpoint with another one"
        )
    return text


def renders(processor: ProcessorMixin, prompt: Prompt) -> bool:
    """Whether the chat template has room for the turns of this prompt: a system turn or earlier ones."""
    try:
        render(processor, prompt)
    except InputError:
        return False
    return True


def beginning_of_turn(processor: ProcessorMixin) -> tuple[int, ...]:
    """The tokens between a reply and what the user says next, as the chat template writes them.

    Raises:
        InputError: the template has no second turn, or nothing stands there.
    """
    asked, replied = ("Yes", "2 or 3"), ("It is so.", "Four,")

    def ids(reply: int, question: int) -> list[int]:  # the two differ in their last and in their first token
        text = render(processor, Prompt(asked[question], None, (("Is it so?", replied[reply]),)))
        encoded: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return encoded

    one, other_reply, other_question = ids(0, 0), ids(1, 0), ids(0, 1)
    shared = min(len(one), len(other_reply))
    tail = next((i for i in range(shared) if one[-1 - i] != other_reply[-1 - i]), shared)
    head = next((i for i, pair in enumerate(zip(one, other_question, strict=False)) if pair[0] != pair[1]), len(one))
    if not one[len(one) - tail : head]:
        raise InputError("the chat template shows no beginning of a user's turn; give --until conversation")
    return tuple(one[len(one) - tail : head])


def continuation(processor: ProcessorMixin, prompt: Prompt, reply: str) -> str:
    """The text behind the rendered prompt when the assistant says ``reply``: usually a space and the reply."""
    before, whole = render(processor, prompt), render(processor, prompt, reply)
    end = whole.rfind(reply) + len(reply)
    if whole.startswith(before) and end > len(before):
        return whole[len(before) : end]
    return reply if before[-1:].isspace() else f" {reply}"


def encode(checkpoint: Checkpoint, prompts: Sequence[Prompt], padding_side: str) -> dict[str, Tensor]:
    """The model inputs of a batch. All of its prompts have pictures or none has; all are raw or none is.

    Returns:
        ``input_ids`` and ``attention_mask`` (b, s), and what the processor adds for pictures, on the model's device.

    Raises:
        InputError: a picture cannot be read, the processor cannot encode a prompt (for example because its text holds
            the mark of a picture), or a prompt is longer than the model's context; the message names the prompt.
    """
    texts = [render(checkpoint.processor, prompt) for prompt in prompts]
    images = [image for prompt in prompts for image in read_images(prompt)]
    # A template may write the beginning-of-sequence token itself; the tokenizer must not write it again.
    bos = checkpoint.processor.tokenizer.bos_token
    add_special_tokens = not (bos and texts[0].startswith(bos))
    try:
        encoded = checkpoint.processor(
            text=texts,
            images=images or None,
            return_tensors="pt",
            padding=True,
            padding_side=padding_side,
            add_special_tokens=add_special_tokens,
        )
    except ValueError as error:
        if len(prompts) > 1:
            for prompt in prompts:  # which of them was it?
                encode(checkpoint, [prompt], padding_side)
        raise InputError(f"{prompts[0].named}: the processor cannot encode it ({first_line(error)})") from None
    _refuse_too_long(checkpoint, prompts, encoded["attention_mask"])
    return {key: value.to(checkpoint.device) for key, value in encoded.items() if key not in IGNORED_KEYS}


def _refuse_too_long(checkpoint: Checkpoint, prompts: Sequence[Prompt], mask: Tensor) -> None:
    context = checkpoint.model.config.get_text_config().max_position_embeddings
    for prompt, tokens in zip(prompts, mask.sum(dim=1).tolist(), strict=True):
        if tokens > context:
            raise InputError(
                f"{prompt.named}: {tokens:,} tokens, but this model's context holds {context:,}; shorten it"
            )


def append(
    checkpoint: Checkpoint, inputs: dict[str, Tensor], replies: Sequence[Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """Put a reply (token ids) behind every prompt of a batch, and pad on the right.

    With padding on the right, positions count from the first token in every family, without position ids.

    Returns:
        the inputs (b, s + r), and for each row the column just after the prompt's last token, (b,).
    """
    real = inputs["attention_mask"].bool()
    lengths = real.sum(dim=1)
    width = int((lengths + torch.tensor([len(reply) for reply in replies], device=lengths.device)).max())
    pad = checkpoint.processor.tokenizer.pad_token_id
    fill = SEQUENCE_KEYS | {"input_ids": 0 if pad is None else pad}
    joined = {key: value for key, value in inputs.items() if key not in fill}
    for key in fill.keys() & inputs.keys():
        rows = inputs[key].new_full((len(replies), width), int(fill[key] or 0))
        for row, reply in enumerate(replies):
            start, stop = int(lengths[row]), int(lengths[row]) + len(reply)
            rows[row, :start] = inputs[key][row, real[row]]
            if key == "input_ids":
                rows[row, start:stop] = reply.to(rows.device)
            elif key == "attention_mask":
                rows[row, start:stop] = 1
        joined[key] = rows
    return joined, lengths


def batches(checkpoint: Checkpoint, prompts: Sequence[Prompt], size: int) -> Iterator[list[int]]:
    """Indices of ``prompts`` in batches of at most ``size``; of one modality and similar length, the longest first."""
    if not prompts:
        return
    tokenizer = checkpoint.processor.tokenizer
    lengths: list[int] = []
    for start in range(0, len(prompts), _RENDERED):  # not all texts at once: there may be many
        texts = [render(checkpoint.processor, prompt) for prompt in prompts[start : start + _RENDERED]]
        lengths += [len(ids) for ids in tokenizer(texts)["input_ids"]]
    for with_image in (True, False):
        for raw in (False, True):
            group = [i for i, prompt in enumerate(prompts) if (bool(prompt.pictures), prompt.raw) == (with_image, raw)]
            group.sort(key=lambda i: (-lengths[i], i))
            for start in range(0, len(group), size):
                yield group[start : start + size]


def read_image(prompt: Prompt) -> Image.Image:
    """The prompt's own picture, RGB; the prompt must have one.

    Raises:
        InputError: as :func:`read_images`.
    """
    return read_images(prompt)[-1]


def read_images(prompt: Prompt) -> list[Image.Image]:
    """All pictures of a prompt, upright and RGB.

    Raises:
        InputError: as :func:`mllmeraser.records.pictures.opened`.
    """
    return [opened(picture, prompt.named) for picture in prompt.pictures]
