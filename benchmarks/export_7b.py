"""Export at 7B: seconds, peak memory and new bytes, on checkpoints with the shapes and names of published models.

    python benchmarks/export_7b.py [--folder DIR] [--copy]

The checkpoints are real safetensors headers over holes, so 14 GB take no room on the disk. Each is exported with links
from five places:

* a snapshot of the Hub's cache, where a shard's name is its sha256;
* a folder of ``hf download --local-dir``, which notes the sha256;
* a plain folder, with a bundle that records the sha256, as ``compute`` does;
* a plain folder with ``--hash later``;
* a plain folder of which nothing is known, so that every byte is read.

With --copy it is also exported by copying, which takes 14 GB. Every line is one run of the command ``mllmeraser
export`` in its own process. ``s`` is the time from the start of the interpreter to its end. ``cpu s`` is the processor
time (on a busy machine the clock shows more). ``new`` does not count the bundle.

The goal with links is 3 s, 400 MB and 200 KB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from random_bundle import kernel_bundle

from mllmeraser.bundle.bundle import Bundle, save_bundle
from mllmeraser.bundle.metadata import WeightFile
from mllmeraser.disk.hashing import sha256_of_all

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Shapes = dict[str, tuple[int, ...]]

CHILD = r"""
import re, sys
from pathlib import Path
from mllmeraser.cli import cli
cli.main(["export", *sys.argv[1:], "--json"], standalone_mode=False)
print(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def llava_1_5_7b() -> tuple[dict[str, Any], Shapes]:
    """llava-hf/llava-1.5-7b-hf: Llama 2 7B, CLIP ViT-L/14-336, a two-layer projector."""
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": 32000,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "torch_dtype": "float16",
        "text_config": {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
    }
    d, inner, vision = 4096, 11008, 1024
    shapes: Shapes = {"language_model.model.embed_tokens.weight": (32064, d)}
    for i in range(32):
        layer = f"language_model.model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{x}_proj.weight": (d, d) for x in "qkvo"}
        shapes |= {f"{layer}.mlp.{x}_proj.weight": (inner, d) for x in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (d, inner)}
        shapes |= {f"{layer}.{x}_layernorm.weight": (d,) for x in ("input", "post_attention")}
    shapes |= {"language_model.model.norm.weight": (d,), "language_model.lm_head.weight": (32064, d)}
    tower = "vision_tower.vision_model"
    shapes |= {
        f"{tower}.embeddings.class_embedding": (vision,),
        f"{tower}.embeddings.patch_embedding.weight": (vision, 3, 14, 14),
        f"{tower}.embeddings.position_embedding.weight": (577, vision),
    }
    for name in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"{tower}.{name}.{x}": (vision,) for x in ("weight", "bias")}
    for i in range(24):
        layer = f"{tower}.encoder.layers.{i}"
        for part, out, inside in (
            *((f"self_attn.{x}", vision, vision) for x in ("q_proj", "k_proj", "v_proj", "out_proj")),
            ("mlp.fc1", 4096, vision),
            ("mlp.fc2", vision, 4096),
        ):
            shapes |= {f"{layer}.{part}.weight": (out, inside), f"{layer}.{part}.bias": (out,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{norm}.{x}": (vision,) for x in ("weight", "bias")}
    for part, inside in (("linear_1", vision), ("linear_2", d)):
        name = f"multi_modal_projector.{part}"
        shapes |= {f"{name}.weight": (d, inside), f"{name}.bias": (d,)}
    return config, shapes


def qwen2_5_vl_7b() -> tuple[dict[str, Any], Shapes]:
    """Qwen/Qwen2.5-VL-7B-Instruct: Qwen2.5 7B with its own vision tower, heads not tied."""
    d, inner, vision, vision_inner = 3584, 18944, 1280, 3420
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "hidden_size": d,
        "intermediate_size": inner,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 128000,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_config": {
            "depth": 32,
            "hidden_size": vision,
            "intermediate_size": vision_inner,
            "num_heads": 16,
            "out_hidden_size": d,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    }
    shapes: Shapes = {"model.embed_tokens.weight": (152064, d)}
    for i in range(28):
        layer = f"model.layers.{i}"
        for x, out in (("q", d), ("k", 512), ("v", 512)):
            shapes |= {f"{layer}.self_attn.{x}_proj.weight": (out, d), f"{layer}.self_attn.{x}_proj.bias": (out,)}
        shapes |= {f"{layer}.self_attn.o_proj.weight": (d, d), f"{layer}.mlp.down_proj.weight": (d, inner)}
        shapes |= {f"{layer}.mlp.{x}_proj.weight": (inner, d) for x in ("gate", "up")}
        shapes |= {f"{layer}.{x}_layernorm.weight": (d,) for x in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (d,), "lm_head.weight": (152064, d)}
    shapes |= {"visual.patch_embed.proj.weight": (vision, 3, 2, 14, 14), "visual.merger.ln_q.weight": (vision,)}
    for part, out in (("mlp.0", 5120), ("mlp.2", d)):
        shapes |= {f"visual.merger.{part}.weight": (out, 5120), f"visual.merger.{part}.bias": (out,)}
    for i in range(32):
        block = f"visual.blocks.{i}"
        for part, out, inside in (
            ("attn.qkv", 3 * vision, vision),
            ("attn.proj", vision, vision),
            ("mlp.gate_proj", vision_inner, vision),
            ("mlp.up_proj", vision_inner, vision),
            ("mlp.down_proj", vision, vision_inner),
        ):
            shapes |= {f"{block}.{part}.weight": (out, inside), f"{block}.{part}.bias": (out,)}
        shapes |= {f"{block}.{norm}.weight": (vision,) for norm in ("norm1", "norm2")}
    return config, shapes


def write_sparse(folder: Path, config: dict[str, Any], shapes: Shapes, shards: int, dtype: str = "F16") -> Path:
    """Write a checkpoint of these shapes. Every weight is a hole, which reads as zeros."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text("{}")
    size = {name: 2 * torch.Size(shape).numel() for name, shape in shapes.items()}
    limit, filled = sum(size.values()) / shards, 0
    groups: list[list[str]] = [[]]
    for name in shapes:
        if filled + size[name] > limit and len(groups) < shards:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size[name]
    weight_map = {}
    for number, names in enumerate(groups, 1):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            header[name] = {"dtype": dtype, "shape": shapes[name], "data_offsets": [end, end + size[name]]}
            end += size[name]
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = folder / f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        weight_map |= dict.fromkeys(names, path.name)
    index = {"metadata": {"total_size": sum(size.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def as_snapshot(base: Path, repository: Path, hashes: dict[str, str]) -> Path:
    """The same files as the Hub's client caches them: blobs named by their sha256, and links to them."""
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in base.iterdir():
        name = hashes.get(path.name) or hashlib.sha1(path.read_bytes()).hexdigest()
        os.link(path, blobs / name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / name)
    return snapshot


def as_downloaded(base: Path, folder: Path, hashes: dict[str, str]) -> Path:
    """The same files as ``hf download --local-dir`` leaves them."""
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    for file, sha256 in hashes.items():
        (notes / f"{file}.metadata").write_text(f"{COMMIT}\n{sha256}\n{(base / file).stat().st_mtime + 1}\n")
    for path in base.iterdir():
        os.link(path, folder / path.name)
    return folder


def recorded(base: Path, hashes: dict[str, str]) -> Bundle:
    """A bundle that records the same about the weights as ``compute`` does."""
    bundle = kernel_bundle(base)
    weights = {file: WeightFile(size=(base / file).stat().st_size, sha256=sha256) for file, sha256 in hashes.items()}
    bundle.metadata.base.weights = weights
    return bundle


def measure(base: Path, bundle: Path, output: Path, *options: str) -> tuple[float, ...]:
    """Seconds, processor seconds, peak memory in MB and new bytes in KB of one export in its own process."""
    command = [sys.executable, "-c", CHILD, base, "--bundle", bundle, "-o", output, *options]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    new = json.loads(done.stdout)["needed_bytes"] - bundle.stat().st_size
    return seconds, processors, int(done.stderr.splitlines()[-1]) * 1024 / 1e6, new / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="work here (default: the system's temporary folder)")
    parser.add_argument("--copy", action="store_true", help="also export by copying, which takes 14 GB a model")
    options = parser.parse_args()
    cases = (("LLaVA-1.5-7B", llava_1_5_7b, 3, "F16"), ("Qwen2.5-VL-7B", qwen2_5_vl_7b, 4, "BF16"))
    print(f"{'':13} {'base':28} {'GB':>6} {'s':>6} {'cpu s':>6} {'peak MB':>8} {'new KB':>7}")
    for title, shapes, shards, dtype in cases:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            plain = write_sparse(folder / "plain", *shapes(), shards=shards, dtype=dtype)
            hashes = {path.name: sha256 for path, sha256 in sha256_of_all(plain.glob("*.safetensors")).items()}
            cached = as_snapshot(plain, folder / "models--org--name", hashes)
            downloaded = as_downloaded(plain, folder / "downloaded", hashes)
            silent, knowing = folder / "silent.safetensors", folder / "knowing.safetensors"
            save_bundle(kernel_bundle(plain), silent)
            save_bundle(recorded(plain, hashes), knowing)
            rows: list[tuple[str, Path, Path, tuple[str, ...]]] = [
                ("Hub cache", cached, silent, ()),
                ("hf download --local-dir", downloaded, silent, ()),
                ("folder, bundle of compute", plain, knowing, ()),
                ("folder, --hash later", plain, silent, ("--hash", "later")),
                ("folder, every byte hashed", plain, silent, ()),
            ]
            if options.copy:
                rows.append(("folder, --link copy", plain, silent, ("--link", "copy")))
            size = sum(path.stat().st_size for path in plain.glob("*.safetensors")) / 1e9
            for number, (kind, base, bundle, how) in enumerate(rows):
                seconds, processors, peak, new = measure(base, bundle, folder / f"out{number}", *how)
                print(
                    f"{title:13} {kind:28} {size:6.2f} {seconds:6.2f} {processors:6.2f} {peak:8.0f} {new:7.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
