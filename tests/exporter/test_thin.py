"""A thin export: kilobytes that point to a base on the Hub, and load bit for bit as the whole checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from builders import tiny
from builders.checkpoints import edit_json, make_base, make_bundle
from builders.hub_cache import BASE_ID, REVISION, make_cache
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.modeling_mllmeraser import SteeringError, steered_class
from mllmeraser.steering.in_process import torch_tensors


@pytest.fixture
def cache(sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with a base in several shards."""
    make_cache(sharded, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def thin(cache: Path, sharded: Path, tmp_path: Path) -> Path:
    export(Source(sharded), [make_bundle(sharded)], tmp_path / "thin", thin=True, base_id=BASE_ID)
    return tmp_path / "thin"


def load(directory: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = steered_class("llava").from_pretrained(directory, local_files_only=True).eval()
    return loaded


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.arange(3, 11).unsqueeze(0)).logits
    return found


def failed(directory: Path, base: Path | None = None) -> set[str]:
    return {check.name for check in verify(directory, base).checks if not check.ok}


def test_it_holds_no_weights_and_loads_as_the_whole_one(thin: Path, sharded: Path, tmp_path: Path) -> None:
    export(Source(sharded), [make_bundle(sharded)], tmp_path / "whole")
    assert [path.name for path in thin.glob("*.safetensors")] == ["mllmeraser-steering.safetensors"]
    model, whole = load(thin), load(tmp_path / "whole")
    assert torch.equal(logits(model), logits(whole))
    assert not torch.equal(logits(model), logits(tiny.model("llava")))
    assert model.config.name_or_path == str(thin)  # type: ignore[union-attr]
    assert model.generation_config.to_dict() == whole.generation_config.to_dict()  # type: ignore[operator, union-attr]
    assert str(tmp_path) not in "".join(path.read_text(errors="replace") for path in thin.iterdir())


def test_it_is_saved_whole(thin: Path, tmp_path: Path) -> None:
    load(thin).save_pretrained(tmp_path / "saved")  # type: ignore[operator]
    assert torch.equal(logits(load(tmp_path / "saved")), logits(load(thin)))


def test_verify_reads_every_byte_of_the_base(thin: Path, cache: Path, sharded: Path) -> None:
    assert failed(thin) == failed(thin, sharded) == set()
    shard = sorted(cache.rglob("blobs/*"), key=lambda path: path.stat().st_size)[-1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert "index" in failed(thin)
    other = make_base(sharded.parent / "other", sharded=True)
    shards = sorted(other.glob("*.safetensors"))
    shards[0].write_bytes(bytes(data) if shards[0].stat().st_size == len(data) else shards[0].read_bytes()[:-1] + b"x")
    assert "base" in failed(thin, other)


@pytest.mark.parametrize("name", ["adapter_config.json", "custom_generate/generate.py"])
def test_what_leads_elsewhere_in_the_base_is_refused(thin: Path, cache: Path, name: str) -> None:
    """transformers would follow it from the snapshot, as it would from the checkpoint."""
    snapshot = next(path.parent for path in cache.rglob("config.json"))
    (snapshot / name).parent.mkdir(exist_ok=True)
    (snapshot / name).write_text('{"base_model_name_or_path": "org/other"}')
    with pytest.raises(SteeringError, match=name.split("/")[0]):
        load(thin)
    assert "loads" in failed(thin)
    (snapshot / name).unlink()
    load(thin)


@pytest.mark.parametrize("damage", ["missing", "shorter", "another blob", "index", "no cache"])
def test_a_base_that_is_not_the_exported_one_does_not_load(thin: Path, cache: Path, damage: str) -> None:
    snapshot = cache / "models--some-org--a-base" / "snapshots" / REVISION
    link = sorted(snapshot.glob("*.safetensors"))[0]
    blob = link.resolve()
    if damage == "missing":
        link.unlink()
    elif damage == "shorter":
        blob.write_bytes(blob.read_bytes()[:-1])
    elif damage == "another blob":
        link.unlink()
        link.symlink_to(blob.rename(blob.with_name("0" * 64)))
    elif damage == "index":
        index = snapshot / "model.safetensors.index.json"
        index.resolve().write_text(index.read_text().replace('"total_size"', '"total_sizE"'))
    else:
        shutil.rmtree(cache)
    with pytest.raises(SteeringError, match="some-org/a-base@0123"):
        load(thin)


@pytest.mark.parametrize(
    "pointer",
    [
        {"repo_id": "../elsewhere/base"},
        {"revision": "main"},
        {"files": {"../x.safetensors": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": {}},
        {"files": {"model.bin": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": None},
    ],
)
def test_a_pointer_that_is_not_one_is_refused(thin: Path, pointer: dict[str, object]) -> None:
    steering = json.loads((thin / "config.json").read_text())["steering"]
    edit_json(thin / "config.json", steering={**steering, "base": {**steering["base"], **pointer}})
    with pytest.raises(SteeringError, match="changed since"):
        load(thin)
    tiny.seal(thin)  # as an attacker would
    with pytest.raises(SteeringError, match=r"steering\.base"):
        load(thin)
    assert "index" in failed(thin)


def test_a_folder_of_that_name_is_not_the_repository(
    thin: Path, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sharded, tmp_path / "some-org" / "a-base")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SteeringError, match="no pinned repository"):
        load(thin)


def test_where_the_base_is_must_be_known(sharded: Path, cache: Path, tmp_path: Path) -> None:
    bundle = make_bundle(sharded)
    for base_id in (None, "some-org/a-base", "some-org/a-base@main", str(sharded)):
        with pytest.raises(InputError, match="--base-id org/name@"):
            export(Source(sharded), [bundle], tmp_path / "out", thin=True, base_id=base_id)
    snapshot = cache / "models--some-org--a-base" / "snapshots" / REVISION
    export(Source(snapshot), [bundle], tmp_path / "out", thin=True)  # the cache says it
    assert json.loads((tmp_path / "out" / "config.json").read_text())["steering"]["base"]["revision"] == REVISION


def test_a_single_file_is_pointed_to_by_its_own_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cache(base, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    bundle = make_bundle(base)
    export(Source(base), [bundle], tmp_path / "thin", thin=True, base_id=BASE_ID)
    expected = tiny.steered(tiny.model("llava"), (bundle.steering(), torch_tensors(bundle)))
    assert torch.equal(logits(load(tmp_path / "thin")), logits(expected))
    assert failed(tmp_path / "thin") == set()
