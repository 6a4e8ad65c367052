"""lmms-eval's own model classes on a steered checkpoint: ``huggingface`` answers steered, ``llava_hf`` refuses.

In an environment of its own, with the transformers that lmms-eval 0.7.3 works with (its ``huggingface`` class passes
``audios`` to every processor, which 5.24 refuses), and without torchvision and timm unless they fit the torch there::

    pip install lmms-eval decord transformers==4.57.6 'datasets<4'
    python tests/clients/lmms_eval_client.py BASE STEERED RECORDS.jsonl [--n 8]

lmms-eval asks every question in its own way: chat messages of a task, the exported processor's template, greedy
replies. Each is compared with the reply that the checkpoint gives in transformers, loaded by
``AutoModelForImageTextToText``, and with the base's. Prints one JSON object; exit 1 if a reply is not the steered one,
if none differs from the base's, or if ``llava_hf``, which knows the native class only, does not refuse the checkpoint.

BASE must be a checkpoint that transformers 4.57 reads, as published ones are. The demo's is written by transformers 5:
give its weights and configuration the published form first (``as_published`` in ``transformers_matrix.py``, and
``extra_special_tokens`` of ``tokenizer_config.json`` as a dictionary), and compute on that.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.models.chat.huggingface import Huggingface
from lmms_eval.models.simple.llava_hf import LlavaHf
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

NEW = 24  # tokens of a reply
TASK, SPLIT = "records", "test"


def messages(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One turn of the user, as lmms-eval's tasks make it."""
    seen = [] if record["picture"] is None else [{"type": "image", "url": record["picture"]}]
    return [{"role": "user", "content": [*seen, {"type": "text", "text": record["prompt"]}]}]


def by_lmms_eval(checkpoint: Path, records: list[dict[str, Any]]) -> list[str]:
    """The replies of lmms-eval's ``huggingface`` class."""
    model = Huggingface(str(checkpoint), device="cpu", device_map="cpu", trust_remote_code=True)
    model.task_dict = {TASK: {SPLIT: records}}
    settings = {"max_new_tokens": NEW, "temperature": 0.0}
    return [
        model.generate_until(
            [
                Instance(
                    request_type="generate_until",
                    arguments=(record["prompt"], messages, settings, number, TASK, SPLIT),
                    idx=0,
                    metadata={"task": TASK, "doc_id": number, "repeats": 1},
                )
            ]
        )[0].text
        for number, record in enumerate(records)
    ]


def by_transformers(checkpoint: Path, records: list[dict[str, Any]]) -> list[str]:
    """The replies of the checkpoint as anybody loads it, in lmms-eval's precision."""
    how = {"trust_remote_code": True, "dtype": torch.bfloat16}
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, **how).eval()
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    replies = []
    for record in records:
        seen = [] if record["picture"] is None else [{"type": "image"}]
        turn = [{"role": "user", "content": [*seen, {"type": "text", "text": record["prompt"]}]}]
        text = processor.apply_chat_template(turn, add_generation_prompt=True)
        batch = processor(text=[text], images=None if not seen else [record["picture"]], return_tensors="pt")
        reply = model.generate(**batch, max_new_tokens=NEW, do_sample=False)
        replies.append(processor.batch_decode(reply[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)[0])
    return replies


def refusal(checkpoint: Path) -> str | None:
    """What ``llava_hf`` says to the checkpoint; None if it takes it."""
    try:
        LlavaHf(str(checkpoint), device="cpu", device_map="cpu")
    except (ValueError, KeyError, OSError) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return None


def main() -> int:
    """Ask, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("steered", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--n", type=int, default=8)
    options = parser.parse_args()
    records = []
    for line in options.records.read_text(encoding="utf-8").splitlines()[: options.n]:
        record = json.loads(line)
        picture = Image.open(options.records.parent / record["image"]).convert("RGB") if record.get("image") else None
        records.append({"prompt": record.get("prompt") or record["question"], "picture": picture})
    found, expected = by_lmms_eval(options.steered, records), by_transformers(options.steered, records)
    plain = by_transformers(options.base, records)
    counts = {
        "n": len(records),
        "as_steered": sum(a == b for a, b in zip(found, expected, strict=True)),
        "as_base": sum(a == b for a, b in zip(found, plain, strict=True)),
        "llava_hf": refusal(options.steered),
    }
    print(json.dumps(counts | {"replies": found, "replies_of_base": plain}, indent=2))
    return int(counts["as_steered"] < len(records) or counts["as_base"] == len(records) or counts["llava_hf"] is None)


if __name__ == "__main__":
    sys.exit(main())
