"""Tiny base directories, bundles for them, and exports, for the tests of the exporter, its promises and attacks."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1] / "modeling"))

import tiny

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Base, GateForm, LayerStatistics, Metadata, Method, RemovalRequest
from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source

torch.set_num_threads(1)  # the models are tiny: a second thread only waits

SIDECARS = {
    "tokenizer.json": '{"version": "1.0"}',
    "tokenizer_config.json": '{"tokenizer_class": "LlamaTokenizer",   "processor_class": "LlavaProcessor"}',
    "preprocessor_config.json": '{"image_processor_type": "CLIPImageProcessor"}',
    "chat_template.jinja": "{{ messages }}",
    "special_tokens_map.json": "{}",
    "LICENSE": "the licence of the base",
    "NOTICE.txt": "a notice",
    "README.md": "---\nlicense: llama2\nlicense_name: 'some-name'\ntags:\n- x\n---\n# The base's own card\n",
    "modeling_base.py": "raise SystemExit('the base\\'s code was run')\n",
    "training_args.bin": "a pickle",
    "notes.txt": "not carried",
}
MakeBase = Callable[..., Path]

_STATISTICS = LayerStatistics(
    auroc_train=0.999,
    auroc_heldout=0.987,
    forget_mean=0.9,
    forget_std=0.1,
    retain_mean=0.01,
    retain_std=0.05,
    leakage=0.02,
    true_fire_heldout=0.95,
    false_fire_heldout=0.012,
)


def make_base(directory: Path, family: tiny.Family = "llava", sharded: bool = False) -> Path:
    """A base checkpoint as it would be published, in one file or in several."""
    tiny.model(family).save_pretrained(directory, max_shard_size="60KB" if sharded else "1GB")
    for name, text in SIDECARS.items():
        (directory / name).write_text(text)
    return directory


def make_bundle(base: Path, request_id: str = "r1", family: tiny.Family = "llava", **steering: object) -> Bundle:
    """A bundle for a base of :func:`make_base`; ``steering`` as in :func:`tiny.steering`."""
    model = tiny.model(family)
    section, tensors = tiny.steering(model, tiny.prompt(family, 5, 6, 7, 8), **steering)
    request, text = section["requests"][0], model.config.get_text_config()
    metadata = Metadata(
        base=Base(
            repo_id=None,
            revision=None,
            architecture=type(model).__name__,
            model_type=family,
            hidden_size=text.hidden_size,
            num_layers=text.num_hidden_layers,
            config_sha256=hashlib.sha256((base / "config.json").read_bytes()).hexdigest(),
        ),
        requests=[
            RemovalRequest(
                id=request_id,
                created="2026-01-02",
                n_forget=12,
                n_retain=34,
                strength=request["strength"],
                statistics=dict.fromkeys(request["layers"], _STATISTICS),
            )
        ],
        layers=request["layers"],
        gate_layer=request["gate_layer"],
        strength=request["strength"],
        gate=GateForm(**request["gate"], landmarks=request["landmarks"]),
        prompt_positions=request["prompt_positions"],
        reply_steps=request["reply_steps"],
        method=Method(
            null_space="soft:1",
            ridge=0.1,
            ridge_scale="relative",
            direction="matched",
            perturbation="none",
            preset=None,
        ),
        template_sha256="0" * 64,
        versions={"torch": "2.13.0"},
        seed=0,
    )
    return Bundle(metadata, {name: tensor.numpy() for name, tensor in tensors.items()})


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of a directory, by its path there."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def edit_json(path: Path, **keys: object) -> None:
    """Set keys of a JSON file; the file is replaced, so that nothing linked to it changes."""
    value = {**json.loads(path.read_text()), **keys}
    path.unlink()
    path.write_text(json.dumps(value))


@pytest.fixture(autouse=True)
def _no_progress_bar() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A LLaVA base in one file."""
    return make_base(tmp_path / "base")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A LLaVA base in several shards."""
    return make_base(tmp_path / "base", sharded=True)


@pytest.fixture
def exported(base: Path, tmp_path: Path) -> Path:
    """An export with one kernel-gated request, in copies, so that damaging it leaves the base alone."""
    bundle = make_bundle(base, kind="kernel", shape="step", threshold=0.6, steps=2)
    export(Source(base), [bundle], tmp_path / "out", link="copy")
    return tmp_path / "out"
