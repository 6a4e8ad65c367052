"""Asks some records a second time, by other means, so that one mistake cannot make both figures (promise P15).

The first figure comes from our own reader of records and pictures, our batches, and the judge of facts. The second one
has none of these: transformers loads the picture by its path, the processor's own chat template makes the tokens, and
an answer counts if it stands in the reply as a plain substring, whatever its case.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin
from transformers.utils import logging

from mllmeraser.console import track
from mllmeraser.evaluation.items import Item
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.judging.results_file import CrossCheck
from mllmeraser.records.prompts import Picture, Prompt

ASKED = 100  # records of each set, by default: one reply of so many is a point
BATCH = 16
LONGEST = 60  # characters; a longer value is a text of its own, which no right reply need repeat to the letter


def cross_check(
    checkpoint: Checkpoint, asked: Sequence[tuple[Prompt, Item]], count: int, limit: int, seed: int
) -> list[CrossCheck]:
    """The share of right answers by either means, for one model and each of its sets.

    Multiple choice, where accuracy is a likelihood, is left out. So are records that the judge cannot know, those of
    whose values each is longer than ``LONGEST``, and prompts that are more than one turn of the chat template.

    Args:
        asked: the prompts that a model was asked, and what was made of its replies.
        count: at most so many records of each set are asked again.
        limit: tokens of a reply, at most.
        seed: of the choice of records.
    """
    found = []
    for name in dict.fromkeys(item.set for _, item in asked):
        rows = [(prompt, item) for prompt, item in asked if item.set == name and _comparable(prompt, item)]
        rows = random.Random(f"cross-check {seed} {name}").sample(rows, min(count, len(rows)))
        if rows:
            model = rows[0][1].model
            said = replies(checkpoint, [prompt for prompt, _ in rows], limit, f"{model}: {name} again")
            found.append(compared([item for _, item in rows], said))
    return found


def compared(items: Sequence[Item], said: Sequence[str]) -> CrossCheck:
    """The first figure from the items of one model and set, the second from these replies to the same records."""
    told = [stands_in(reply, item) for item, reply in zip(items, said, strict=True)]
    return CrossCheck(
        model=items[0].model,
        set=items[0].set,
        n=len(items),
        accuracy=sum(item.correct for item in items) / len(items),
        again=sum(told) / len(told),
        same_replies=sum(item.reply == reply for item, reply in zip(items, said, strict=True)) / len(items),
    )


def stands_in(reply: str, item: Item) -> bool:
    """Whether a fact, or else an accepted answer, is a substring of the reply, whatever its case."""
    return any(value.casefold() in reply.casefold() for value in _values(item))


def _values(item: Item) -> Sequence[str]:
    return item.facts or item.accepted


def _comparable(prompt: Prompt, item: Item) -> bool:
    one_turn = prompt._replace(image=None) == Prompt(prompt.text, None)
    short = any(len(value) <= LONGEST for value in _values(item))
    return item.task != "classification" and item.told != "unknowable" and short and one_turn


@torch.inference_mode()
def replies(checkpoint: Checkpoint, prompts: Sequence[Prompt], limit: int, progress: str) -> list[str]:
    """Greedy replies, as somebody would get them who has read the documentation of transformers alone."""
    processor = _processor(checkpoint)
    said = [""] * len(prompts)
    with TemporaryDirectory(prefix="mllmeraser-again-") as folder:
        for rows in track(list(_batches(prompts)), progress):
            conversations = [_conversation(prompts[i], Path(folder) / f"{i}") for i in rows]
            inputs = processor.apply_chat_template(
                conversations,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True, "padding_side": "left"},
            ).to(checkpoint.device)
            inputs.pop("token_type_ids", None)
            ids = checkpoint.model.generate(**inputs, max_new_tokens=limit, do_sample=False)
            texts = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, text in zip(rows, texts, strict=True):
                said[i] = text.strip()
    return said


def _processor(checkpoint: Checkpoint) -> ProcessorMixin:
    """A processor of its own, as transformers loads it; ours where transformers lacks a package for its videos."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of an exported model_type
    try:
        return AutoProcessor.from_pretrained(checkpoint.path, trust_remote_code=False)
    except ImportError:
        return checkpoint.processor
    finally:
        logging.set_verbosity(verbosity)


def _batches(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    for pictured in (True, False):
        rows = [i for i, prompt in enumerate(prompts) if (prompt.image is not None) is pictured]
        rows.sort(key=lambda i: len(prompts[i].text))
        yield from (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _conversation(prompt: Prompt, where: Path) -> list[dict[str, Any]]:
    """One turn of the user. A picture that is no file is written to one, as the bytes that it is."""
    content: list[dict[str, Any]] = []
    if prompt.image is not None:
        path = prompt.image
        if isinstance(path, Picture):
            where.write_bytes(path.data)
            path = where
        elif isinstance(path, Image.Image):
            path.save(where, format="PNG")
            path = where
        content.append({"type": "image", "path": str(path)})
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt.text}]}]
