"""P7. A base from anybody: nothing of it is run, nothing outside it is read, what cannot be trusted is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import hostile_headers
from builders.checkpoints import contents, edit_json, make_base, make_bundle

from mllmeraser.errors import InputError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source, resolve
from mllmeraser.modeling_patches.format_mllmeraser import CODE

SECRET = "secret of another directory"


def refused(base: Path, because: str) -> None:
    """The export says so in one line, and writes nothing."""
    bundle = make_bundle(base)
    before = sorted(path.name for path in base.parent.iterdir())
    with pytest.raises(InputError, match=because) as caught:
        export(Source(base), [bundle], base.parent / "out")
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert sorted(path.name for path in base.parent.iterdir()) == before


def test_code_of_the_base_is_neither_run_nor_carried_along(base: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    bomb = f"open({str(canary)!r}, 'w')\n"
    for name in (
        "modeling_llava.py",
        "configuration_llava.py",
        "processing_llava.py",
        "__init__.py",
        "sitecustomize.py",
    ):
        (base / name).write_text(bomb)
    code = {"AutoConfig": "configuration_llava.C", "AutoModelForImageTextToText": "org/evil--modeling_llava.M"}
    edit_json(base / "config.json", auto_map=code, trust_remote_code=True)
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        edit_json(base / name, auto_map={"AutoProcessor": "processing_llava.P"})
    resolve(base)
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    assert verify(tmp_path / "out", base).ok
    assert not canary.exists()
    text = b"".join(data for name, data in contents(tmp_path / "out").items() if name.endswith(".json"))
    assert b"evil" not in text
    assert b"processing_llava" not in text
    assert b"trust_remote_code" not in text
    assert {path.name for path in (tmp_path / "out").glob("*.py")} == {*CODE}


@pytest.mark.parametrize("where", ["", "text_config", "vision_config"])
@pytest.mark.parametrize(
    "keys",
    [
        {"_attn_implementation_internal": "org/kernel"},
        {"_attn_implementation": "org/kernel"},
        {"attn_implementation": {"": "org/kernel"}},
        {"trust_remote_code": True},
        {"auto_map": {"AutoModel": "org/evil--m.M"}},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_a_key_that_fetches_code_is_dropped_at_any_depth(
    base: Path, tmp_path: Path, where: str, keys: dict[str, Any]
) -> None:
    """CVE-2026-4372, CVE-2026-5241."""
    config = json.loads((base / "config.json").read_text())
    edit_json(base / "config.json", **({where: {**config[where], **keys}} if where else keys))
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    text = (tmp_path / "out" / "config.json").read_text()
    assert "org/" not in text
    assert "trust_remote_code" not in text


def _index(base: Path, name: str) -> None:
    """Point one tensor of the weight map at another file."""
    index = json.loads((base / "model.safetensors.index.json").read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = name
    (base / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/passwd", "a/../../secret.safetensors", "..\\secret.safetensors", "", ".", ".hidden",
     "secret\0.safetensors", "C:secret.safetensors"],
)  # fmt: skip
def test_a_weight_map_that_leaves_the_directory_is_refused(sharded: Path, name: str) -> None:
    (sharded.parent / "secret.safetensors").write_text(SECRET)
    _index(sharded, name)
    refused(sharded, "base|safetensors")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "LICENSE", "README.md", "config.json"]
)
def test_a_link_that_leaves_the_directory_is_refused(base: Path, tmp_path: Path, name: str) -> None:
    bundle = make_bundle(base)
    secret = tmp_path / "secret"
    (base / name).rename(secret)
    (base / name).symlink_to(secret)
    with pytest.raises(InputError, match="a link that leaves the base's directory") as caught:
        export(Source(base), [bundle], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_blobs_beside_a_snapshot_are_followed_and_nothing_else_there(base: Path, tmp_path: Path) -> None:
    bundle = make_bundle(base)
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    base.rename(snapshot)
    outside = tmp_path / "models--org--name" / "refs"
    (snapshot / "tokenizer.json").rename(outside)
    (snapshot / "tokenizer.json").symlink_to(outside)
    with pytest.raises(InputError, match="a link that leaves"):
        export(Source(snapshot), [bundle], tmp_path / "out")


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.ckpt", "model.pkl"])
def test_pickles_are_refused_unread(base: Path, tmp_path: Path, name: str) -> None:
    (base / "training_args.bin").unlink()
    (base / name).write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    bundle = make_bundle(base)
    (base / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"{name}, a pickle"):
        export(Source(base), [bundle], tmp_path / "out")
    assert not (tmp_path / "canary").exists()


def test_a_pickle_under_the_name_of_a_shard_is_not_read_as_one(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    refused(base, "not a readable safetensors file")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("lie", hostile_headers.LIES)
def test_a_header_that_lies_is_refused(base: Path, lie: str) -> None:
    header, length = hostile_headers.LIES[lie]
    hostile_headers.write(base / "model.safetensors", header, bytes(16), length)
    refused(base, "not a readable safetensors file")


def test_a_missing_shard_and_a_missing_tensor_are_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"]["a.tensor.of.nobody"] = shard.name
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(sharded, "a.tensor.of.nobody is not in")
    shard.unlink()
    refused(sharded, f"{shard.name}: this shard is missing")


def test_a_base_cannot_bring_steering_of_its_own(base: Path) -> None:
    data = bytes(16)
    hostile_headers.write(
        base / "model.safetensors",
        {"language_model.model.layers.1.steering.0.gate": hostile_headers.tensor(0, 16)},
        data,
    )
    refused(base, "holds the steering tensor")


@pytest.mark.parametrize("name", ["mllmeraser-steering.safetensors", "mllmeraser-base-00001-of-00009.safetensors"])
def test_a_shard_cannot_take_the_place_of_another_file(sharded: Path, tmp_path: Path, name: str) -> None:
    """Whatever a shard is called in the base, it gets a name of ours."""
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shard.rename(sharded / name)
    text = (sharded / "model.safetensors.index.json").read_text().replace(shard.name, name)
    (sharded / "model.safetensors.index.json").write_text(text)
    export(Source(sharded), [make_bundle(sharded)], tmp_path / "out")
    assert verify(tmp_path / "out", sharded).ok


def test_an_endless_file_is_not_read(base: Path, tmp_path: Path) -> None:
    """A named pipe that nobody writes to, where a file should be: it would wait for ever."""
    bundle = make_bundle(base)
    (base / "tokenizer.json").unlink()
    os.mkfifo(base / "tokenizer.json")
    export(Source(base), [bundle], tmp_path / "out")
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    (base / "model.safetensors").unlink()
    os.mkfifo(base / "model.safetensors")
    with pytest.raises(InputError, match="missing"):
        export(Source(base), [bundle], tmp_path / "out2")


def test_json_as_deep_as_the_sea_is_one_line(base: Path, tmp_path: Path) -> None:
    bundle = make_bundle(base)
    for name in ("tokenizer_config.json", "config.json"):
        (base / name).unlink()
        (base / name).write_text('{"model_type": "llava", "a": ' + "[" * 100_000 + "]" * 100_000 + "}")
        with pytest.raises(InputError, match="not valid JSON") as caught:
            export(Source(base), [bundle], tmp_path / "out")
        assert "\n" not in str(caught.value)


def test_a_nested_native_configuration_does_not_load_the_native_class(tmp_path: Path) -> None:
    """A published Qwen2.5-VL nests its own model_type; any nested dictionary may."""
    base = make_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    edit_json(base / "config.json", extra={"model_type": "llava", "deeper": {"model_type": "llava"}})
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    exported = json.loads((tmp_path / "out" / "config.json").read_text())
    assert '"model_type": "llava"' not in json.dumps(exported)
    assert verify(tmp_path / "out", base).ok
    edit_json(tmp_path / "out" / "config.json", extra={**config})
    failed = {check.name for check in verify(tmp_path / "out").checks if not check.ok}
    assert {"config", "loads"} <= failed


def test_a_template_of_the_base_is_carried_and_never_rendered(base: Path, tmp_path: Path) -> None:
    """Not by the card either, which is a template of ours."""
    attack = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% include '/etc/passwd' %}"
    (base / "chat_template.jinja").write_text(attack)
    (base / "README.md").write_text(f"---\nlicense: mit{attack}\nlicense_name: {{{{7*7}}}}\n---\n{attack}")
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == attack
    card = (tmp_path / "out" / "README.md").read_text()
    assert "subclasses" not in card
    assert "49" not in card.split("---")[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P is new in 3.11")
def test_a_python_in_the_base_does_not_shadow_a_module(base: Path, tmp_path: Path) -> None:
    """Run from inside the base, as people do."""
    for name in ("safetensors.py", "torch.py", "json.py"):
        (base / name).write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    script = "import sys; from pathlib import Path; from mllmeraser.exporter.base import read_base; "
    script += "from mllmeraser.inference.source import resolve; read_base(resolve(Path(sys.argv[1])))"
    subprocess.run([sys.executable, "-P", "-c", script, base], check=True, cwd=base)
    assert not (tmp_path / "canary").exists()
