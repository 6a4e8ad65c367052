"""A bundle comes back as it was written; whatever else lies in the file is one line that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import checkpoints
from safetensors.torch import save
from torch import Tensor

from mllmeraser.bundle.bundle import Bundle, load_bundle, save_bundle
from mllmeraser.bundle.metadata import Metadata
from mllmeraser.errors import InputError
from mllmeraser.steering.in_process import torch_tensors

KINDS = [
    {"kind": "linear", "shape": "identity"},
    {"kind": "kernel", "shape": "step", "threshold": 0.6, "steps": 3, "gate_layer": 0},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def bundle(base: Path) -> Bundle:
    return checkpoints.make_bundle(base, **KINDS[1])


def written(path: Path, metadata: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Path:
    """A file that need not be a bundle."""
    path.write_bytes(save(tensors, metadata=None if metadata is None else {"mllmeraser": json.dumps(metadata)}))
    return path


def document(bundle: Bundle) -> dict[str, Any]:
    return bundle.metadata.model_dump(mode="json", by_alias=True)


def refusal(path: Path) -> str:
    """The message about a file that is no bundle; it is one line that begins with the path."""
    with pytest.raises(InputError) as caught:
        load_bundle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("form", KINDS, ids=["linear", "kernel"])
def test_a_bundle_comes_back_and_is_written_again_byte_for_byte(base: Path, tmp_path: Path, form: Any) -> None:
    bundle = checkpoints.make_bundle(base, **form)
    save_bundle(bundle, tmp_path / "a.safetensors")
    again = load_bundle(tmp_path / "a.safetensors")
    assert again.metadata == bundle.metadata
    assert again.tensors.keys() == bundle.tensors.keys()
    assert all(np.array_equal(array, bundle.tensors[name]) for name, array in again.tensors.items())
    reordered = Bundle(metadata=again.metadata, tensors=dict(reversed(again.tensors.items())))
    save_bundle(reordered, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_file_cut_off_anywhere_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_bundle(bundle, path)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refusal(path).startswith("not a readable safetensors file (")


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04" + b"\0" * 99, b"\xff" * 64], ids=["text", "zip", "bytes"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    said = refusal(path)
    assert said.startswith("not a readable safetensors file (")
    assert f"make it anew with: mllmeraser compute BASE --forget F --retain R -o {path} --overwrite" in said


def test_the_safetensors_of_a_model_is_no_bundle(base: Path) -> None:
    said = refusal(base / "model.safetensors")
    assert said.startswith("a safetensors file, but not a steering bundle")
    assert said.endswith("; give the file that mllmeraser compute -o wrote")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    assert refusal(path) == (
        f"no such file; make a bundle with: mllmeraser compute BASE --forget F --retain R -o {path}"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 3),
        ("seed", "x"),
        ("requests", []),
        ("layers", []),
        ("reply_steps", 0),
        ("prompt_positions", "first"),
        ("subjects", ["Ada"]),
    ],
)
def test_metadata_that_is_not_of_this_schema_names_the_key(
    bundle: Bundle, tmp_path: Path, key: str, value: object
) -> None:
    path = written(tmp_path / "b.safetensors", {**document(bundle), key: value}, torch_tensors(bundle))
    assert refusal(path).startswith(f"metadata key {key}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("leaf", ["0.landmarks", "0.weights", "0.bandwidth", "1.direction"])
def test_a_value_that_is_not_finite_names_the_tensor(bundle: Bundle, tmp_path: Path, leaf: str, value: float) -> None:
    name = f"requests.0.layers.{leaf}"
    bundle.tensors[name].reshape(-1)[0] = value
    path = written(tmp_path / "b.safetensors", document(bundle), torch_tensors(bundle))
    assert refusal(path) == f"tensor {name} holds a value that is not finite; compute the bundle again"


def test_a_wrong_shape_or_type_or_name_names_the_tensor(bundle: Bundle, tmp_path: Path) -> None:
    name, path = "requests.0.layers.1.direction", tmp_path / "b.safetensors"
    tensors, called = torch_tensors(bundle), "steering tensor 'direction' of request 0 at layer 1"
    wrong = {
        "F32 (2, 32), not F32 (3, 32)": tensors[name][:2].clone(),
        "F16 (3, 32), not F32 (3, 32)": tensors[name].half(),
    }
    for message, tensor in wrong.items():
        written(path, document(bundle), {**tensors, name: tensor})
        assert refusal(path) == f"{called} is {message}; compute the bundle again"
    written(path, document(bundle), {n: t for n, t in tensors.items() if n != name})
    assert refusal(path) == f"{called} is missing; compute the bundle again"
    written(path, document(bundle), {**tensors, "requests.1.layers.1.direction": torch.zeros(3, 32)})
    called = called.replace("request 0", "request 1")
    assert refusal(path) == f"{called} is not expected; compute the bundle again"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"layers": [2, 1]}, "layers"),
        ({"layers": [1, 4]}, "layers"),
        ({"gate_layer": 2}, "gate_layer"),
        (
            {"gate": {"kind": "kernel", "shape": "step", "threshold": None, "landmarks": 4}},
            "gate.threshold",
        ),
    ],
    ids=["order", "beyond", "gate layer", "threshold"],
)
def test_metadata_that_contradicts_itself_is_refused_when_read_and_when_written(
    bundle: Bundle, tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    message = f"metadata.requests[0].{key}: not a value this version knows; compute the bundle again"
    content = {**document(bundle), **change}
    assert refusal(written(tmp_path / "b.safetensors", content, torch_tensors(bundle))) == message
    broken = Bundle(Metadata.model_validate(content), bundle.tensors)
    with pytest.raises(InputError, match="^" + str(tmp_path / "c.safetensors")):
        save_bundle(broken, tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()
