"""`export --format onnx` of a random LLaVA: seconds, and peak memory over the size of the weights that are written.

    python benchmarks/onnx_export.py [--layers 6] [--precision fp32]

The base has hidden size 2048 and is stored in bfloat16, in shards. One process makes it, another exports it. Peak
memory is measured in two ways: the memory that the process has allocated, sampled every 20 ms, and its resident memory,
which also counts the pages of mapped files. ``libraries`` is the resident memory before the weights are touched.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

MAKE = """
import sys, torch
from pathlib import Path
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.utils import logging
folder, layers = Path(sys.argv[1]), int(sys.argv[2])
text = LlamaConfig(vocab_size=32064, hidden_size=2048, intermediate_size=5504, num_hidden_layers=layers,
                   num_attention_heads=16)
vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, num_attention_heads=16,
                          image_size=336, patch_size=14)
logging.disable_progress_bar()
torch.set_default_dtype(torch.bfloat16)
model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=32000))
model.save_pretrained(folder, max_shard_size="400MB")
(folder / "tokenizer.json").write_text("{}")
(folder / "preprocessor_config.json").write_text("{}")
"""

EXPORT = """
import json, resource, sys, threading, time
from pathlib import Path
from random_bundle import kernel_bundle
from mllmeraser.exporter.onnx import export
from mllmeraser.inference.source import Source

def memory(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024

base, precision = Path(sys.argv[1]), sys.argv[2]
bundle, libraries, done, peak = kernel_bundle(base), memory("VmRSS"), threading.Event(), [0]

def watch():
    while not done.wait(0.02):
        peak[0] = max(peak[0], memory("RssAnon"))

watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
export.export_onnx(Source(base), [bundle], base.parent / "out", precision=precision,
            progress=lambda line: print(f"{time.perf_counter() - start:6.1f} s  {line}", file=sys.stderr))
seconds = time.perf_counter() - start
done.set()
watcher.join()
resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"libraries": libraries, "allocated": peak[0], "resident": resident, "seconds": seconds}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--precision", choices=["fp32", "fp16"], default="fp32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        subprocess.run([sys.executable, "-c", MAKE, base, str(options.layers)], check=True, stdout=subprocess.DEVNULL)
        stored = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        command = [sys.executable, "-W", "ignore", "-c", EXPORT, base, options.precision]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parent)
        found = json.loads(done.stdout.splitlines()[-1])
        written = sum(path.stat().st_size for path in (base.parent / "out" / "onnx").glob("*_data"))
    print(f"base {stored / 1e9:.2f} GB, weights written {written / 1e9:.2f} GB, {found['seconds']:.0f} s")
    for key in ("allocated", "resident"):
        print(f"peak {key} {found[key] / 1e9:.2f} GB, {found[key] / written:.2f} times the weights")
    print(f"libraries {found['libraries'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
