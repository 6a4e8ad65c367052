"""What is lost where only the prompt can be steered: the demo model with all K directions, and with the first alone.

    mllmeraser demo DIR && python benchmarks/reply_steps.py DIR

The script asks the base and both steered models every question of ``test`` (forgotten people in new pictures and
words). It prints by task the share of replies that hold the right answer, and of replies that are a whole refusal.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from mllmeraser.bundle.bundle import Bundle, load_bundle
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.steering.in_process import torch_tensors

REFUSAL = "I cannot help with that request."


def prompt_only(bundle: Bundle) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The steering of a bundle, with K = 1."""
    section = bundle.steering()
    section["requests"] = [{**request, "reply_steps": 1} for request in section["requests"]]
    tensors = {n: t[:1] if n.endswith((".direction", ".states")) else t for n, t in torch_tensors(bundle).items()}
    return section, tensors


@torch.no_grad()
def replies(model: Any, processor: Any, rows: list[dict[str, Any]], data: Path) -> list[str]:
    """Greedy replies of at most 24 tokens."""
    found = []
    for row in rows:
        content = [{"type": "image"}] if row["image"] else []
        turn = [{"role": "user", "content": [*content, {"type": "text", "text": row["prompt"]}]}]
        text = processor.apply_chat_template(turn, add_generation_prompt=True)
        image = Image.open(data / row["image"]) if row["image"] else None
        inputs = processor(images=image, text=text, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        found.append(processor.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    return found


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="what `mllmeraser demo DIR` wrote")
    folder = parser.parse_args().demo
    base = LlavaForConditionalGeneration.from_pretrained(folder / "base", dtype=torch.float32).eval()
    processor, bundle = AutoProcessor.from_pretrained(folder / "base"), load_bundle(folder / "steered.safetensors")
    rows = [json.loads(line) for line in (folder / "data" / "test.jsonl").read_text().splitlines()]
    cls, steps = steered_class("llava"), bundle.metadata.reply_steps
    models = {"base": base, f"K = {steps}": cls.from_base(base, bundle.steering(), torch_tensors(bundle))}
    models["K = 1"] = cls.from_base(base, *prompt_only(bundle))
    for name, model in models.items():
        said = replies(model, processor, rows, folder / "data")
        for task in ("generation", "cloze", "classification"):
            of_task = [(reply, row["match"]) for reply, row in zip(said, rows, strict=True) if row["task"] == task]
            right = sum(any(match.lower() in reply.lower() for match in matches) for reply, matches in of_task)
            refused = sum(reply == REFUSAL for reply, _ in of_task)
            print(f"{name:7} {task:15} {len(of_task)} replies, right {right}, refused {refused}", flush=True)


if __name__ == "__main__":
    main()
