"""The cost of steering in inference, on decoder layers of the LLaVA-1.5-7B shape with random weights.

    python benchmarks/overhead.py [--gates 128x512 128x2048] [--tokens 256] [--steps 32] [--rounds 7] [--layers 2]
        [--hidden 4096] [--dtype float32|bfloat16] [--cpu-time] [--load]

The models share their weights: the base; for each of --gates (projections x landmarks) two steered ones, which read the
gate at every column of one layer and seal two layers, of which ``kept`` never opens and ``sealed`` always does; and the
paper's layer, which adds W h_last with a dense d x d matrix W at one layer, as a forward hook. They take turns in each
round, in a new order each time. The base takes two turns: ``base again`` shows how much the machine varies. The script
prints the median of the rounds' ratios and, in brackets, their quartiles. ``of 32`` is the ratio for a model of 32 such
layers: the time that one request adds, over 32 times the time of a layer. It also prints the bytes of each bundle.

With --hidden 128 --layers 32 --gates 16x16 nothing is left but the work of Python and of torch's dispatch. That is what
decoding waits for on an accelerator that is quicker than the processor which drives it.

With --requests 1 10 100 the steered models have so many requests of the first of --gates at one layer. They share its
projection and half of its landmarks, as those of a ledger do, or with --apart nothing.

With --load the script compares loading instead: the native class on the base's directory against ours on its export, in
turns. Each directory has a tokenizer file of LLaVA's size, which ours hashes. There are two checkpoints. The first is
all of LLaVA-1.5-7B over files of holes, which are mapped and never read, so that nothing hides the extra work of ours.
The second has --layers real layers (405 MB each in bfloat16), and every weight of it is read once, as any use does.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from export_7b import llava_1_5_7b, write_sparse
from random_bundle import sealing_bundle
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.utils import logging

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.shared import share
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.format_mllmeraser import SCHEMA, bundle_name, tensor_key
from mllmeraser.modeling_patches.modeling_mllmeraser import MllmEraserLlavaForConditionalGeneration
from mllmeraser.steering.in_process import torch_tensors

FULL = 32  # decoder layers of a 7B
clock = time.perf_counter


def base_model(layers: int, hidden: int, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """A LLaVA with a few decoder layers of the 7B shape (at 4096) and a tiny vision tower and vocabulary."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=hidden * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=511, vision_feature_layer=-1)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(previous)
    return model.eval()


def dense_hook(dtype: torch.dtype, d: int) -> Callable[..., Any]:
    """The paper's layer: every forward adds a d × d matrix times the last position's hidden state at all positions."""
    w = torch.randn(d, d, dtype=dtype) * 1e-4

    def hook(_module: Any, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
        return output + torch.nn.functional.linear(output[:, -1:], w)

    return hook


@torch.no_grad()
def timed(model: Any, ids: torch.Tensor, steps: int) -> tuple[float, float]:
    """The seconds of a prefill, and of one decoded token."""
    start = clock()
    output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    prefill = clock() - start
    token = ids[:, :1]
    start = clock()
    for _ in range(steps):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
    return prefill, (clock() - start) / steps


def in_turns(rounds: int, runs: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Run everything once in each round, in a new order each time. The first round only warms up."""
    found: dict[str, list[Any]] = {name: [] for name in runs}
    chance = random.Random(0)
    for number in range(rounds + 1):
        for name in chance.sample(list(runs), len(runs)):
            result = runs[name]()
            if number > 0:
                found[name].append(result)
    return found


def quartiles(values: list[float], reference: list[float]) -> tuple[float, float, float]:
    """The quartiles of the rounds' ratios. Each ratio is of one round, so that a busy minute affects both sides."""
    low, middle, high = statistics.quantiles(
        [value / base for value, base in zip(values, reference, strict=True)], n=4, method="inclusive"
    )
    return low, middle, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", nargs="+", default=["128x512", "128x2048"], help="projections x landmarks")
    parser.add_argument("--requests", nargs="+", type=int, help="so many requests of the first gate")
    parser.add_argument("--apart", action="store_true", help="with --requests: they share nothing")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--steps", type=int, default=32, help="tokens decoded")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=2, help="two or more")
    parser.add_argument("--hidden", type=int, default=4096, help="a multiple of 128")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--load", action="store_true", help="compare loading instead")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time, for a shared machine")
    options = parser.parse_args()
    if options.cpu_time:
        global clock
        clock = time.process_time
        torch.set_num_threads(1)  # a thread that waits for another one counts too
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # past_key_values has another name from transformers 5.24 on
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = base_model(options.layers, options.hidden, vars(torch)[options.dtype])
        base.save_pretrained(folder / "base")
        if options.load:
            del base
            write_sparse(folder / "7b" / "base", *llava_1_5_7b(), shards=3)
            for where in (folder, folder / "7b"):
                make_export(where)
            compare_loading("LLaVA-1.5-7B over holes", folder / "7b", options.rounds, read=False)
            compare_loading(f"{options.layers} layers, every weight read", folder, options.rounds, read=True)
        else:
            one = steered(base, folder, options.gates) if options.requests is None else many(base, folder, options)
            compare_inference(base, one, options)


def steered(base: LlavaForConditionalGeneration, folder: Path, gates: list[str]) -> dict[str, Any]:
    """The base steered by each gate, never open and always; prints the bundles' bytes."""
    models = {}
    for gate in gates:
        projection, landmarks = map(int, gate.split("x"))
        for row, threshold in (("kept", 1e9), ("sealed", -1e9)):
            bundle = sealing_bundle(folder / "base", landmarks=landmarks, projection=projection, threshold=threshold)
            models[f"{gate} {row}"] = MllmEraserLlavaForConditionalGeneration.from_base(
                base, bundle.steering(), torch_tensors(bundle)
            )
        save_bundle(bundle, folder / gate)
        print(f"{gate}: a bundle of {(folder / gate).stat().st_size:,} bytes (16 states of two layers)")
    return models


def many(base: LlavaForConditionalGeneration, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The base steered by several requests, never open; prints the bytes of their tensors."""
    models = {}
    projection, landmarks = map(int, options.gates[0].split("x"))
    for count in options.requests:
        drawn = [
            sealing_bundle(
                folder / "base", landmarks=landmarks, projection=projection, threshold=1e9, kept=landmarks // 2
            )
            for _ in range(count)
        ]
        entries = [{**bundle.steering()["requests"][0], "id": f"r{n}"} for n, bundle in enumerate(drawn)]  # type: ignore[index]
        tensors = {(n, *tensor_key(key)[1:]): a for n, bundle in enumerate(drawn) for key, a in bundle.tensors.items()}
        steering: dict[str, Any] = {"schema": SCHEMA, "requests": entries}
        if not options.apart:
            steering["requests"], steering["kept"], tensors = share(entries, tensors, [landmarks // 2] * count)
        named = {bundle_name(key): torch.from_numpy(array) for key, array in tensors.items()}
        print(f"{count} request(s): {sum(array.nbytes for array in tensors.values()):,} bytes")
        models[f"{count} request(s)"] = MllmEraserLlavaForConditionalGeneration.from_base(base, steering, named)
    return models


def compare_inference(base: Any, ours: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the ratios of prefill and of decoding."""
    ids = torch.randint(3, 500, (1, options.tokens))
    hook, layer = dense_hook(base.dtype, options.hidden), base.get_decoder().layers[options.layers // 2]

    def run(model: Any) -> Callable[[], tuple[float, float]]:
        return lambda: timed(model, ids, options.steps)

    def paper() -> tuple[float, float]:
        handle = layer.register_forward_hook(hook)
        try:
            return timed(base, ids, options.steps)
        finally:
            handle.remove()

    steered = {name: run(model) for name, model in ours.items()}
    found = in_turns(options.rounds, {"base": run(base), "base again": run(base), **steered, "paper": paper})
    threads = torch.get_num_threads()
    shape = f"{options.layers} layers of d = {options.hidden}, {options.dtype}"
    print(f"{shape}, {threads} thread(s), {options.tokens} tokens")
    for index, phase in enumerate(("prefill", "decode")):
        times = {who: [row[index] for row in rows] for who, rows in found.items()}
        print(f"{phase:8} {'base':15} {1e3 * statistics.median(times['base']):8.1f} ms")
        for who in (who for who in found if who != "base"):
            low, ratio, high = quartiles(times[who], times["base"])
            whole = 1 + (ratio - 1) * options.layers / FULL
            print(f"{'':8} {who:15} {ratio:8.4f} [{low:.4f}, {high:.4f}]  of 32: {whole:.4f}", flush=True)


def read_every_weight(model: Any) -> None:
    """Touch every page of the files that the weights are mapped from."""
    for parameter in model.parameters():
        parameter.flatten()[::1024].sum()  # pages are of 4096 bytes, weights of 2 or 4


def compare_loading(title: str, folder: Path, rounds: int, read: bool) -> None:
    """Print the ratio of the loading times of a folder's export and base."""

    def load(family: Any, name: str) -> Callable[[], float]:
        def run() -> float:
            start = clock()
            model = family.from_pretrained(folder / name, dtype="auto")
            if read:
                read_every_weight(model)
            return clock() - start

        return run

    of_base = load(LlavaForConditionalGeneration, "base")
    ours = load(MllmEraserLlavaForConditionalGeneration, "steered")
    found = in_turns(rounds, {"base": of_base, "base again": of_base, "ours": ours})
    size = sum(path.stat().st_size for path in (folder / "base").glob("*.safetensors")) / 1e9
    print(f"load     base       {1e3 * statistics.median(found['base']):8.1f} ms, {size:.2f} GB, {title}")
    for who in ("base again", "ours"):
        low, ratio, high = quartiles(found[who], found["base"])
        more = 1e3 * statistics.median(v - b for v, b in zip(found[who], found["base"], strict=True))
        print(f"{'':8} {who:10} {ratio:8.4f} [{low:.4f}, {high:.4f}]  {more:+.1f} ms", flush=True)


def make_export(folder: Path) -> None:
    """The export of ``folder/base``, beside a tokenizer as large as LLaVA's."""
    (folder / "base" / "tokenizer.json").write_text(f'{{"as large as": "{"x" * 3_600_000}"}}')
    bundle = sealing_bundle(folder / "base", landmarks=512, projection=128)
    export(Source(folder / "base"), [bundle], folder / "steered", hash_weights=False)


if __name__ == "__main__":
    main()
