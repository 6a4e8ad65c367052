"""Does what a stranger does with a checkpoint: loads it with transformers alone, and asks it questions.

Run it as a script in its own process: ``python -I stranger.py REQUEST``. REQUEST is a JSON file with ``checkpoint`` (a
directory), ``options`` (for ``from_pretrained``), ``records`` (each ``text``, ``image`` or null, ``options`` or null),
``threads`` and ``output``. Importing mllmeraser fails here on purpose, so that the replies show what the checkpoint
does by itself.

It writes JSON: for each record the ``ids`` and ``text`` of the greedy reply, and the ``log_likelihoods`` of the
options. After every batch it prints a line "asked DONE TOTAL".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.modules["mllmeraser"] = None  # type: ignore[assignment]  # any import of it now fails

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.image_utils import load_image
from transformers.utils import logging

BATCH = 64
NEW_TOKENS = 50

Record = dict[str, Any]


def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Load the checkpoint and ask it every record; one answer for each record, in order."""
    processor = AutoProcessor.from_pretrained(request["checkpoint"])
    model = AutoModelForImageTextToText.from_pretrained(
        request["checkpoint"], dtype=torch.float32, **request["options"]
    )
    model.eval()
    records: list[Record] = request["records"]
    choices = [
        {**record, "row": row, "reply": option}
        for row, record in enumerate(records)
        for option in record["options"] or ()
    ]
    work = [(_reply, batch) for batch in _batches(records)] + [(_weigh, batch) for batch in _batches(choices)]
    answers: list[dict[str, Any]] = [{"log_likelihoods": []} for _ in records]
    done, total = 0, len(records) + len(choices)
    with torch.inference_mode():
        for act, rows in work:
            if act is _reply:
                for row, said in zip(rows, _reply(model, processor, [records[row] for row in rows]), strict=True):
                    answers[row] |= said
            else:
                asked = [choices[row] for row in rows]
                for choice, score in zip(asked, _weigh(model, processor, asked), strict=True):
                    choice["score"] = score
            done += len(rows)
            print("asked", done, total, flush=True)
    for choice in choices:
        answers[choice["row"]]["log_likelihoods"].append(choice["score"])
    return answers


def _batches(records: Sequence[Record]) -> Iterator[list[int]]:
    """Indices in batches of one modality and similar length."""
    for with_image in (True, False):
        rows = [row for row, record in enumerate(records) if bool(record["image"]) is with_image]
        rows.sort(key=lambda row: len(records[row]["text"]))
        yield from (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _encode(processor: Any, records: Sequence[Record], side: str, spoken: bool = False) -> Any:
    """The model's inputs for a batch: the prompts, or (``spoken``) the prompts followed by the replies to weigh."""
    texts = []
    for record in records:
        content = [{"type": "image"}] if record["image"] else []
        turns: list[Any] = [{"role": "user", "content": [*content, {"type": "text", "text": record["text"]}]}]
        if spoken:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": record["reply"]}]})
        text = processor.apply_chat_template(turns, add_generation_prompt=not spoken)
        texts.append(text[: text.rindex(record["reply"]) + len(record["reply"])] if spoken else text)
    pictures = [load_image(record["image"]) for record in records if record["image"]]
    return processor(text=texts, images=pictures or None, return_tensors="pt", padding=True, padding_side=side)


def _reply(model: Any, processor: Any, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Greedy replies, up to the end-of-sequence token."""
    inputs = _encode(processor, records, "left")
    said = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    replies = []
    for ids in said.tolist():
        end = processor.tokenizer.eos_token_id
        ids = ids[: ids.index(end) + 1] if end in ids else ids
        replies.append({"ids": ids, "text": processor.decode(ids, skip_special_tokens=True).strip()})
    return replies


def _weigh(model: Any, processor: Any, records: Sequence[Record]) -> list[float]:
    """log p(reply | prompt), teacher-forced. A label of −100 marks the tokens of the prompt and the padding."""
    prompt = _encode(processor, records, "right")["attention_mask"].sum(dim=1)
    inputs = _encode(processor, records, "right", spoken=True)
    labels: Tensor = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[torch.arange(labels.shape[1]) < prompt[:, None]] = -100
    likely = model(**inputs, labels=labels, use_cache=False).logits[:, :-1].float().log_softmax(dim=-1)
    spoken = labels[:, 1:]
    scores = likely.gather(2, spoken.clamp(min=0)[..., None])[..., 0].masked_fill(spoken == -100, 0).sum(dim=1)
    return [float(score) for score in scores]


def main() -> None:
    """Answer the request named on the command line."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(request["threads"])
    Path(request["output"]).write_text(json.dumps(answer(request)), encoding="utf-8")


if __name__ == "__main__":
    main()
