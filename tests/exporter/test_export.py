"""An export is the base's files untouched, and a few kilobytes beside them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.checkpoints import SIDECARS, contents, edit_json, make_base, make_bundle
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoProcessor, CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

from mllmeraser.bundle.limits import LIMITS
from mllmeraser.disk import link
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.inspect import inspect, summary
from mllmeraser.exporter.names import shipped_code
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source

SEALING: dict[str, Any] = {
    "scope": "conversation",
    "edit": "seal",
    "kind": "kernel",
    "shape": "step",
    "threshold": 0.5,
    "layers": (2, 3),
    "gate_layer": 1,
    "steps": 3,
    "projection": 16,
    "strength": 1.0,
}
OURS = {
    "README.md",
    "config.json",
    "configuration_mllmeraser.py",
    "format_mllmeraser.py",
    "mllmeraser-steering.safetensors",
    "mllmeraser.json",
    "mllmeraser.safetensors.index.json",
    "modeling_mllmeraser.py",
    "steering_mllmeraser.py",
}
COPIED = {
    "LICENSE",
    "NOTICE.txt",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
}


def test_it_holds_exactly_the_files_of_the_design(sharded: Path, tmp_path: Path) -> None:
    own = sorted(path.name for path in sharded.glob("*.safetensors"))
    shards = {f"mllmeraser-base-{n:05}-of-{len(own):05}.safetensors": name for n, name in enumerate(own, 1)}
    assert len(shards) > 2
    export(Source(sharded), [make_bundle(sharded)], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == OURS | COPIED | shards.keys()
    for name, here in {**dict(zip(COPIED, COPIED, strict=True)), **shards}.items():
        assert (tmp_path / "out" / name).read_bytes() == (sharded / here).read_bytes(), name
    for name, content in shipped_code().items():
        assert (tmp_path / "out" / name).read_bytes() == content


def test_shards_are_linked_and_everything_else_is_a_file_of_its_own(sharded: Path, tmp_path: Path) -> None:
    plan = export(Source(sharded), [make_bundle(sharded)], tmp_path / "out", link="hard")
    given = {path.stat().st_ino for path in sharded.iterdir()}
    for file in plan.files:
        linked = (tmp_path / "out" / file.name).stat().st_ino in given
        assert linked == (file.action == "link"), file.name


def test_a_single_file_gets_a_name_the_native_class_does_not_look_for(base: Path, tmp_path: Path) -> None:
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()
    shard = tmp_path / "out" / "mllmeraser-base-00001-of-00001.safetensors"
    assert sha256_of(shard) == sha256_of(base / "model.safetensors")


def test_the_weight_map_names_every_base_tensor_and_every_steering_tensor(sharded: Path, tmp_path: Path) -> None:
    export(Source(sharded), [make_bundle(sharded)], tmp_path / "out")
    index = json.loads((tmp_path / "out" / "mllmeraser.safetensors.index.json").read_text())
    before = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    added = {name: file for name, file in index["weight_map"].items() if name not in before}
    own = sorted(set(before.values()))
    shards = {name: f"mllmeraser-base-{n:05}-of-{len(own):05}.safetensors" for n, name in enumerate(own, 1)}
    assert {name: index["weight_map"][name] for name in before} == {n: shards[file] for n, file in before.items()}
    assert added == {
        f"language_model.model.layers.{layer}.steering.0.{leaf}": "mllmeraser-steering.safetensors"
        for layer in (1, 2)
        for leaf in ("direction", "gate")
    }
    size = 0
    for file in set(index["weight_map"].values()):
        size += sum(tensor.nbytes for tensor in load_file(tmp_path / "out" / file).values())
    assert index["metadata"]["total_size"] == size


def test_the_configuration_is_the_bases_with_our_classes(base: Path, tmp_path: Path) -> None:
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    before, after = (json.loads((d / "config.json").read_text()) for d in (base, tmp_path / "out"))
    assert after["model_type"] == "mllmeraser_llava"
    assert after["architectures"] == ["MllmEraserLlavaForConditionalGeneration"]
    assert after["auto_map"] == {
        "AutoConfig": "configuration_mllmeraser.MllmEraserLlavaConfig",
        "AutoModel": "modeling_mllmeraser.MllmEraserLlavaForConditionalGeneration",
        "AutoModelForImageTextToText": "modeling_mllmeraser.MllmEraserLlavaForConditionalGeneration",
    }
    assert (after["steering_enabled"], after["steering_strength"]) == (True, 1.0)
    assert after["steering"]["sha256"] == sha256_of(tmp_path / "out" / "mllmeraser-steering.safetensors")
    changed = {key for key in after if after[key] != before.get(key)}
    ours = {"model_type", "architectures", "auto_map", "steering_enabled", "steering_strength", "steering"}
    assert changed == ours
    assert before.keys() - after.keys() == set()


def test_a_published_qwen_vision_config_does_not_keep_the_native_model_type(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen2_5_vl")
    vision = json.loads((base / "config.json").read_text())["vision_config"]
    edit_json(base / "config.json", vision_config={**vision, "model_type": "qwen2_5_vl"})
    export(Source(base), [make_bundle(base, family="qwen2_5_vl")], tmp_path / "out")
    assert "model_type" not in json.loads((tmp_path / "out" / "config.json").read_text())["vision_config"]
    assert verify(tmp_path / "out", base).ok


def test_several_bundles_become_several_requests(base: Path, tmp_path: Path) -> None:
    bundles = [
        make_bundle(base, "first"),
        make_bundle(base, "second", kind="kernel", shape="step", threshold=0.6, steps=3, layers=(2, 3), gate_layer=1),
    ]
    export(Source(base), bundles, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert [entry["id"] for entry in config["steering"]["requests"]] == ["first", "second"]
    tensors = load_file(tmp_path / "out" / "mllmeraser-steering.safetensors")
    for i, bundle in enumerate(bundles):
        for name, tensor in bundle.tensors.items():
            _, _, _, layer, leaf = name.split(".")
            assert torch.equal(
                tensors[f"language_model.model.layers.{layer}.steering.{i}.{leaf}"], torch.from_numpy(tensor)
            )
    assert len(tensors) == sum(len(bundle.tensors) for bundle in bundles)
    assert verify(tmp_path / "out").ok


def test_an_id_can_be_used_once(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two requests have the id 'r1'"):
        export(Source(base), [make_bundle(base), make_bundle(base)], tmp_path / "out")


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("architecture", "OtherForConditionalGeneration"),
        ("model_type", "qwen2_5_vl"),
        ("hidden_size", 64),
        ("num_layers", 40),
        ("config_sha256", "f" * 64),
    ],
)
def test_a_bundle_of_another_base_is_refused(base: Path, tmp_path: Path, fact: str, value: object) -> None:
    bundle = make_bundle(base)
    setattr(bundle.metadata.base, fact, value)
    with pytest.raises(InputError, match="the bundle of request 'r1' does not fit") as caught:
        export(Source(base), [bundle], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_non_empty_target_is_refused_and_replaced_only_with_overwrite(base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(Source(base), [make_bundle(base)], tmp_path / "out")  # an empty one is fine
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match="--overwrite"):
        export(Source(base), [make_bundle(base, "other")], tmp_path / "out")
    assert contents(tmp_path / "out") == before
    export(Source(base), [make_bundle(base, "other")], tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") != before
    assert verify(tmp_path / "out").ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]


@pytest.mark.parametrize("where", ["base", "base/inside", ".", "a file", "missing/out"])
def test_an_output_that_would_do_harm_is_refused(base: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "a file").touch()
    before = contents(tmp_path)
    with pytest.raises(InputError):
        export(Source(base), [make_bundle(base)], tmp_path / where, overwrite=True)
    assert contents(tmp_path) == before


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(base: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    dry = export(Source(base), [make_bundle(base)], tmp_path / "out", dry_run=True).document()
    assert contents(tmp_path) == before
    real = export(Source(base), [make_bundle(base)], tmp_path / "out").document()
    assert {**dry, "dry_run": False} == real
    rows: Any = real["files"]
    assert {row["name"]: row["bytes"] for row in rows} == {n: len(c) for n, c in contents(tmp_path / "out").items()}
    json.dumps(real)


@pytest.mark.parametrize("mode", ["auto", "copy", "hard", "sym"])
def test_every_way_to_link_gives_the_same_checkpoint(base: Path, tmp_path: Path, mode: link.Link) -> None:
    export(Source(base), [make_bundle(base)], tmp_path / "out", link=mode)
    shard = tmp_path / "out" / "mllmeraser-base-00001-of-00001.safetensors"
    assert shard.is_symlink() == (mode == "sym")
    assert verify(tmp_path / "out", base).ok


def test_without_hard_links_auto_copies_and_hard_says_so(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(link.os, "link", refuse)
    export(Source(base), [make_bundle(base)], tmp_path / "auto")
    assert verify(tmp_path / "auto", base).ok
    with pytest.raises(MllmEraserError, match="cannot be hard-linked"):
        export(Source(base), [make_bundle(base)], tmp_path / "hard", link="hard")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["auto", "base"]


def test_a_snapshot_of_the_hub_cache_is_linked_to_its_blobs(base: Path, tmp_path: Path) -> None:
    bundle = make_bundle(base)
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(base.iterdir())):
        path.rename(repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    export(Source(snapshot, "org/name", "a" * 40), [bundle], tmp_path / "out", link="hard")
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "mllmeraser-base-00001-of-00001.safetensors").samefile(snapshot / "model.safetensors")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: org/name\n" in card
    manifest = json.loads((tmp_path / "out" / "mllmeraser.json").read_text())
    assert (manifest["base"]["repo_id"], manifest["base"]["revision"]) == ("org/name", "a" * 40)


def test_the_card_says_what_it_must_and_carries_the_licence(base: Path, tmp_path: Path) -> None:
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    front = card.split("---\n")[1].splitlines()
    for line in (
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "license: llama2",
        "license_name: some-name",
        "- steered",
    ):
        assert line in front
    assert not any(line.startswith("base_model") for line in front)  # a local base has no repository
    assert LIMITS in card
    assert "steering_enabled=False" in card
    gate, tokens = (
        "linear, identity, scope prompt, read at each layer",
        "all of the prompt and 0 positions of the reply",
    )
    assert f"| r1 | 1, 2 | {gate} | add | 1.5 | {tokens} | 0.987 | 95.0% | 1.2% |" in card


def test_card_and_inspect_say_what_a_gate_seals(base: Path, tmp_path: Path) -> None:
    export(Source(base), [make_bundle(base, **SEALING)], tmp_path / "out")
    card, lines = (tmp_path / "out" / "README.md").read_text(), "\n".join(summary(inspect(tmp_path / "out")))
    gate = "kernel, step{}0.5, scope conversation, read at layer 1 through 16 random projections"
    tokens = "every token of a conversation that opens the gate"
    assert f"| r1 | 2, 3 | {gate.format(' ')} | seal | 1 | {tokens} |" in card
    assert "--gate-scope conversation --edit seal" in card
    assert f"  layers 2, 3, edit seal, strength 1, {tokens}\n  gate {gate.format(' at ')}\n" in lines


@pytest.mark.parametrize(
    ("scopes", "below"),
    [
        ("conversation", False),
        ("token", True),
        ("token token", True),
        ("token conversation", False),
        ("prompt token", False),
    ],
)
def test_gates_of_every_scope_stand_together(base: Path, tmp_path: Path, scopes: str, below: bool) -> None:
    bundles = [
        make_bundle(base, f"r{i}", **SEALING | {"scope": scope, "steps": 1 if scope == "token" else 3, "seed": i})
        for i, scope in enumerate(scopes.split())
    ]
    export(Source(base), bundles, tmp_path / "out")
    named = json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"]["AutoModel"]
    assert named.endswith("LlavaModel" if below else "LlavaForConditionalGeneration")
    assert verify(tmp_path / "out", base).ok


def test_the_processor_is_found_although_the_model_type_is_ours(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    for name in SIDECARS:
        (base / name).unlink()
    vocabulary = {"<unk>": 0, "<image>": 1, "a": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")), unk_token="<unk>"
    )
    LlavaProcessor(CLIPImageProcessor(), tokenizer, patch_size=8, chat_template="x").save_pretrained(base)
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if (base / name).exists():
            value = json.loads((base / name).read_text())
            value.pop("processor_class", None)
            (base / name).write_text(json.dumps(value))
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "out"), LlavaProcessor)


def test_an_export_is_quick(sharded: Path, tmp_path: Path) -> None:
    bundle = make_bundle(sharded)
    start = time.perf_counter()
    export(Source(sharded), [bundle], tmp_path / "out")
    assert time.perf_counter() - start < 2  # the promise; measured: hundredths of a second


def test_the_base_model_is_never_loaded(sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Headers:
        def __init__(self, path: Path, framework: str) -> None:
            opened.append(path.name)
            self.file = safe_open(path, framework)

        def __enter__(self) -> Headers:
            self.file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self.file.__exit__(*error)

        def keys(self) -> list[str]:  # and no get_tensor
            return list(self.file.keys())

    monkeypatch.setattr("mllmeraser.exporter.weights.safe_open", Headers)
    export(Source(sharded), [make_bundle(sharded)], tmp_path / "out")
    assert len(opened) > 2
