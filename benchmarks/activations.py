"""Throughput and peak memory of collecting hidden states at the last prompt token: our way against the plain way.

    python benchmarks/activations.py [--prompts 384] [--batch-size 16] [--width 512] [--layers 12] [--rounds 3]
        [--records 48] [--cpu-time]

The model is a LLaVA with the demo's processor and vision tower and a random language model of ``--width`` and
``--layers``. The prompts have mixed lengths; a third are multiple choice, half have a picture. Both ways read the
layers that `compute` considers for a gate: from the second quarter on, without the last.

* plain: takes batches in the given order, pads them to the longest prompt of all, and takes the last real column of
  ``output_hidden_states=True``.
* ours (``inference.activations.last_prompt_states``): takes batches of similar length, keeps only the rows asked for,
  and stops the pass after the last layer needed.

A second comparison uses the variants of ``--augment``, four of each of ``--records`` records, all with a picture:

* seven: opens and changes each variant's picture seven times, as the passes of the first edition did.
* once: does it once, as the passes do now.

The ways take turns, each in its own process. The script prints the median throughputs, the median of the rounds'
ratios, the peak memory above that of the loaded model, and the largest difference between the states of both ways.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration
from transformers.utils import logging

import mllmeraser
from mllmeraser.inference.activations import last_prompt_states
from mllmeraser.inference.encoding import read_image, read_images, render
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.source import Source
from mllmeraser.records.prompts import Picture, Prompt
from mllmeraser.records.record import Record
from mllmeraser.steering.augment import with_variants

DEMO = Path(mllmeraser.__path__[0]) / "demo" / "checkpoint"
SHORT = ("Who is this?", "Where does this person live?", "What does the person in the picture do for a living?")
CLOZE = "Complete the sentence with the missing words only, and nothing else: the person in the picture lives in ___."
CHOICE = "Which of these is right? A. {} B. {} C. {} D. {} Answer with the letter of the right option only."
OPTIONS = ("a baker in a small town", "a teacher who lives near the sea and likes to walk", "somebody else", "a pilot")
KiB = 1024


def model(width: int, layers: int, batch_size: int) -> Checkpoint:
    """The demo's LLaVA around a random language model of this size."""
    torch.manual_seed(0)
    config = LlavaConfig.from_pretrained(DEMO)
    text = config.text_config
    text.hidden_size, text.num_hidden_layers, text.intermediate_size = width, layers, 3 * width
    text.num_attention_heads = text.num_key_value_heads = width // 64
    text.head_dim, text.layer_types = 64, None
    net = LlavaForConditionalGeneration(config).eval()
    return Checkpoint(
        net, AutoProcessor.from_pretrained(DEMO), Source(DEMO), "llava", steered=False, batch_size=batch_size
    )


def prompts(count: int) -> list[Prompt]:
    """Prompts of mixed lengths in random order; every second one has a picture."""
    chance = random.Random(0)
    made = []
    for number in range(count):
        options = [chance.choice(OPTIONS) for _ in range(4)]
        text = chance.choice([chance.choice(SHORT), CLOZE, CHOICE.format(*options)])
        colour = tuple(chance.randrange(256) for _ in range(3))
        made.append(Prompt(text, Image.new("RGB", (64, 64), colour) if number % 2 else None))
    return made


def variants(count: int) -> list[Prompt]:
    """The variants of ``count`` records, each of another person with a photograph."""
    records = []
    for number in range(count):
        file = BytesIO()
        Image.effect_noise((336, 336), 90).convert("RGB").save(file, "PNG")
        picture = Picture(file.getvalue(), f"{number}")
        records.append(Record(subject=f"{number}", question=SHORT[0], answer="?", task="generation", image=picture))
    return with_variants(records, "benchmark", conversations=False)[1]


def once(checkpoint: Checkpoint, asked: list[Prompt], layers: list[int]) -> dict[int, Tensor]:
    """The passes as they are."""
    return last_prompt_states(checkpoint, asked, layers)


def seven(checkpoint: Checkpoint, asked: list[Prompt], layers: list[int]) -> dict[int, Tensor]:
    """The same passes, with every picture opened six more times."""
    for prompt in asked:
        for _ in range(6):
            read_images(prompt)
    return last_prompt_states(checkpoint, asked, layers)


@torch.inference_mode()
def plain(checkpoint: Checkpoint, asked: list[Prompt], layers: list[int]) -> dict[int, Tensor]:
    """h_l at the last prompt token, from ``output_hidden_states=True`` and batches of one size."""
    processor: Any = checkpoint.processor
    texts = [render(processor, prompt) for prompt in asked]
    rows: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    order: list[int] = []
    for with_image in (True, False):  # one batch is of one modality
        group = [i for i, prompt in enumerate(asked) if bool(prompt.image) is with_image]
        images = [read_image(asked[i]) for i in group] if with_image else []
        longest = processor(text=[texts[i] for i in group], images=images or None, padding=True, return_tensors="pt")
        width = longest["input_ids"].shape[1]
        for start in range(0, len(group), checkpoint.batch_size):
            batch = group[start : start + checkpoint.batch_size]
            inputs = processor(
                text=[texts[i] for i in batch],
                images=[read_image(asked[i]) for i in batch] if with_image else None,
                padding="max_length",
                max_length=width,
                padding_side="right",
                return_tensors="pt",
            )
            inputs.pop("token_type_ids", None)
            hidden = checkpoint.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
            last = inputs["attention_mask"].sum(dim=1) - 1
            for layer in layers:
                rows[layer].append(hidden[layer + 1][torch.arange(len(batch)), last].clone())
            order += batch
    back = torch.tensor(order).argsort()
    return {layer: torch.cat(found)[back] for layer, found in rows.items()}


def peak() -> int:
    """The peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KiB


WAYS = {"plain": plain, "ours": last_prompt_states, "seven": seven, "once": once}


def work(options: argparse.Namespace) -> None:
    """Run one way in this process, print its seconds and bytes, and write the states."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(1 if options.cpu_time else torch.get_num_threads())
    checkpoint = model(options.width, options.layers, options.batch_size)
    asked = prompts(options.prompts) if options.way in ("plain", "ours") else variants(options.records)
    layers = list(range(options.layers // 4, options.layers - 1))
    way = WAYS[options.way]
    way(checkpoint, asked[:4], layers)  # warm up
    before, start = peak(), clock()
    states = way(checkpoint, asked, layers)
    seconds = clock() - start
    save_file({str(layer): rows.contiguous() for layer, rows in states.items()}, options.states)
    print(json.dumps({"seconds": seconds, "bytes": peak() - before, "prompts": len(asked)}))


def compare(options: argparse.Namespace, theirs: str, ours: str) -> None:
    """Run both ways in turns and print the comparison."""
    found: dict[str, list[dict[str, float]]] = {theirs: [], ours: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for way in sorted(found, reverse=number % 2 == 0):
                command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--states", f"{folder}/{way}"]
                found[way].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        states = {way: load_file(f"{folder}/{way}") for way in found}
    error = max(
        float((states[ours][name] - rows).abs().max() / rows.abs().max()) for name, rows in states[theirs].items()
    )
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found[theirs], found[ours], strict=True)]
    count = int(found[ours][0]["prompts"])
    print(f"{count} prompts in batches of {options.batch_size}, {options.layers} layers of {options.width}")
    for way, runs in found.items():
        rate = count / statistics.median(run["seconds"] for run in runs)
        memory = statistics.median(run["bytes"] for run in runs) / 1e6
        print(f"{way:6} {rate:8.1f} prompts/s, {memory:8.1f} MB above the loaded model")
    print(f"{ours} is {statistics.median(ratios):.2f} times as fast; states differ by at most {error:.1e}, relatively")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=384)
    parser.add_argument("--records", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time, for a shared machine")
    parser.add_argument("--way", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--states", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable_progress_bar()
    if options.way:
        work(options)
        return
    compare(options, "plain", "ours")
    compare(options, "seven", "once")


if __name__ == "__main__":
    main()
