"""Tiny bases on disk as they would be published, and bundles for them."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from builders import bundles, tiny

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Base
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.exporter.manifest import sealed
from mllmeraser.inference.weight_files import FIRST_EDITION_INDEX
from mllmeraser.modeling_patches import format_mllmeraser as form

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


def make_base(directory: Path, family: tiny.Family = "llava", sharded: bool = False) -> Path:
    """A base checkpoint as it would be published, in one file or in several."""
    return write(directory, _saved(family, sharded) | {name: text.encode() for name, text in SIDECARS.items()})


@functools.cache
def _saved(family: tiny.Family, sharded: bool) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        tiny.model(family).save_pretrained(folder, max_shard_size="60KB" if sharded else "1GB")
        return contents(Path(folder))


def make_bundle(base: Path, request_id: str = "r1", family: tiny.Family = "llava", **steering: object) -> Bundle:
    """A bundle for a base of :func:`make_base`; ``steering`` as in :func:`tiny.steering`."""
    sha256 = hashlib.sha256((base / "config.json").read_bytes()).hexdigest()
    return bundles.bundle(identity(family, sha256), _part(family, **steering), request_id)


@functools.cache
def _part(family: tiny.Family, **steering: object) -> bundles.Part:
    return tiny.steering(tiny.model(family), tiny.prompt(family, 5, 6, 7, 8), **steering)


def identity(family: tiny.Family, config_sha256: str = "0" * 64) -> Base:
    """What a bundle says of the tiny base of this family."""
    return Base(
        repo_id=None,
        revision=None,
        architecture=tiny.modeling.steered_class(family).native_class.__name__,
        model_type=family,
        hidden_size=tiny.HIDDEN,
        num_layers=tiny.LAYERS,
        config_sha256=config_sha256,
    )


def first_edition(directory: Path) -> Path:
    """Turn an export of gates of scope ``prompt`` that push into what the first edition wrote, but for its own code."""
    steering = json.loads((directory / "config.json").read_text())["steering"]
    (directory / form.INDEX).rename(directory / FIRST_EDITION_INDEX)
    steering["seal"][FIRST_EDITION_INDEX] = steering["seal"].pop(form.INDEX)
    for name in ("format_mllmeraser.py", "steering_mllmeraser.py"):
        (directory / name).unlink()
        del steering["seal"][name]
    for name in ("configuration_mllmeraser.py", "modeling_mllmeraser.py"):
        (directory / name).write_text("raise SystemExit('the code of the checkpoint was run')\n")
    for request in steering["requests"]:
        del request["edit"], request["gate"]["projection"], request["gate"]["turn"]
    edit_json(directory / "config.json", steering={**steering, "schema": 1})
    tiny.seal(directory)
    path = directory / "mllmeraser.json"
    manifest = json.loads(path.read_text())
    for metadata in manifest["bundles"]:
        metadata["schema"] = 1
        del metadata["edit"], metadata["gate"]["projection"], metadata["gate"]["turn"]
    files = {
        name: {**entry, "bytes": (directory / name).stat().st_size, "sha256": sha256_of(directory / name)}
        for name, entry in manifest["files"].items()
        if (directory / name).exists()
    }
    path.write_bytes(sealed({**manifest, "files": files}))
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of a directory, by its path there."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def write(directory: Path, files: Mapping[str, bytes]) -> Path:
    """A directory with these files, which may lie in folders."""
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def edit_json(path: Path, **keys: object) -> None:
    """Set keys of a JSON file; the file is replaced, so that nothing linked to it changes."""
    value = {**json.loads(path.read_text()), **keys}
    path.unlink()
    path.write_text(json.dumps(value))
