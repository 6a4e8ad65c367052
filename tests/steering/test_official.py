"""The authors' dense matrices as a bundle: the same steering, and nothing in their files is ever run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import tiny
from builders.checkpoints import make_base
from torch import Tensor

from mllmeraser.bundle.bundle import load_bundle, save_bundle
from mllmeraser.bundle.metadata import Base
from mllmeraser.errors import InputError
from mllmeraser.exporter.base import read_base
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.steering.in_process import torch_tensors
from mllmeraser.steering.official import RANK_ONE_TOLERANCE, import_official

D, BLOCKS = tiny.HIDDEN, (1, 3)


def authors_matrix(layer: int, scale: float = 1.0) -> Tensor:
    """W of one layer, as they make it: D H_fᵀ… with every column of D the same direction."""
    generator = torch.Generator().manual_seed(layer)
    away, gate = torch.randn(2, D, dtype=torch.float64, generator=generator)
    return (scale * torch.outer(away, gate)).float()


@pytest.fixture
def identity(tmp_path: Path) -> Base:
    return read_base(Source(make_base(tmp_path / "base"))).identity


def written(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize("row_vectors", [False, True], ids=["W h", "h W"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_steered_model_is_theirs(tmp_path: Path, family: tiny.Family, row_vectors: bool) -> None:
    matrices = {layer: authors_matrix(layer) for layer in BLOCKS}
    stored = {layer: w.T.contiguous() if row_vectors else w for layer, w in matrices.items()}
    identity = read_base(Source(make_base(tmp_path / "base", family))).identity
    file = written(tmp_path / "w.pt", stored)
    bundle = import_official([file], identity, strength=0.35, row_vectors=row_vectors).bundle
    base = tiny.model(family)
    ours = steered_class(family).from_base(base, bundle.steering(), torch_tensors(bundle))
    batch = tiny.prompt(family, 5, 5)  # without padding: theirs reads the last column
    with torch.no_grad():
        plain = base(**batch).logits
        steered = ours(**batch).logits
        theirs = with_dense_hooks(base, matrices, -0.35, batch)
    assert float((plain - theirs).abs().max()) > 0.1
    assert float((steered - theirs).abs().max() / theirs.abs().max()) < 1e-6


def with_dense_hooks(base: Any, matrices: dict[int, Tensor], strength: float, batch: dict[str, Tensor]) -> Tensor:
    """Logits with h + λ W h_last at the output of each layer, in fp64 for the product, as the method is written."""

    def hook(w: Tensor) -> Any:
        def add(_module: Any, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            moved = hidden + (strength * hidden[:, -1:].double() @ w.double().T).float()
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        return add

    handles = [base.get_decoder().layers[layer].register_forward_hook(hook(w)) for layer, w in matrices.items()]
    try:
        return base(**batch).logits
    finally:
        for handle in handles:
            handle.remove()


def test_two_vectors_are_the_matrix_on_any_state(tmp_path: Path, identity: Base) -> None:
    w = authors_matrix(1)
    tensors = torch_tensors(import_official([written(tmp_path / "w.pt", {1: w})], identity).bundle)
    states = torch.randn(200, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    gates = states @ tensors["requests.0.layers.1.gate"].double()
    ours = gates[:, None] * tensors["requests.0.layers.1.direction"].double()
    theirs = -states @ w.double().T
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


def test_every_way_of_writing_them_gives_the_same_bundle(tmp_path: Path, identity: Base) -> None:
    matrices = {layer: authors_matrix(layer) for layer in BLOCKS}
    by_block = [matrices.get(layer, torch.zeros(D, D)) for layer in range(tiny.LAYERS)]
    (tmp_path / "one").mkdir()
    forms: list[list[Path]] = [
        [written(tmp_path / "dict.pt", matrices)],
        [written(tmp_path / "named.pt", {f"layer_{layer}": w for layer, w in matrices.items()})],
        [written(tmp_path / "list.pt", [matrices.get(layer) for layer in range(tiny.LAYERS)])],
        [written(tmp_path / "stack.pt", torch.stack(by_block))],
        [written(tmp_path / "one" / f"v1.5_layer_{layer}.pt", matrices[layer]) for layer in reversed(BLOCKS)],
        [written(tmp_path / "parameters.pt", {k: torch.nn.Parameter(w) for k, w in matrices.items()})],
    ]
    old = tmp_path / "old.pt"
    torch.save(matrices, old, _use_new_zipfile_serialization=False)
    bundles = [import_official(files, identity).bundle for files in [*forms, [old]]]
    for bundle in bundles:
        assert bundle.metadata == bundles[0].metadata
        assert bundle.metadata.layers == [1, 3]
        for name, tensor in bundle.tensors.items():
            assert np.array_equal(tensor, bundles[0].tensors[name])


def test_layers_of_zeros_are_not_steered_and_are_named(tmp_path: Path, identity: Base) -> None:
    stack = torch.stack([torch.zeros(D, D), authors_matrix(1), torch.zeros(D, D), authors_matrix(3)])
    imported = import_official([written(tmp_path / "w.pt", stack)], identity)
    assert (imported.skipped, imported.bundle.metadata.layers) == ((0, 2), [1, 3])
    with pytest.raises(InputError, match="every matrix is zero"):
        import_official([written(tmp_path / "0.pt", stack[:1])], identity)


def test_what_the_files_do_not_say_is_not_made_up(tmp_path: Path, identity: Base) -> None:
    bundle = import_official([written(tmp_path / "w.pt", {1: authors_matrix(1)})], identity, request_id="r7").bundle
    save_bundle(bundle, tmp_path / "b.safetensors")
    meta = load_bundle(tmp_path / "b.safetensors").metadata
    request = meta.requests[0]
    assert (request.id, request.n_forget, request.n_retain, request.statistics) == ("r7", 0, 0, {})
    assert (meta.method.preset, meta.method.calibration["imported"]) == ("paper", True)
    assert (meta.gate.kind, meta.gate.shape, meta.gate_layer) == ("linear", "identity", None)
    assert (meta.prompt_positions, meta.reply_steps, set(meta.template_sha256)) == ("all", 1, {"0"})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_rounding_to_another_precision_is_within_the_tolerance(
    tmp_path: Path, identity: Base, dtype: torch.dtype
) -> None:
    imported = import_official([written(tmp_path / "w.pt", {2: authors_matrix(2).to(dtype)})], identity)
    assert imported.residuals[2] < RANK_ONE_TOLERANCE


@pytest.mark.parametrize("share", [0.01, 0.12, 1.0])
def test_rank_two_is_refused_with_the_share_of_the_second(tmp_path: Path, identity: Base, share: float) -> None:
    q = torch.linalg.qr(torch.randn(D, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    w = torch.outer(q[:, 0], q[:, 1]) + share * torch.outer(q[:, 2], q[:, 3])
    with pytest.raises(InputError, match=rf"layer 3: .* not of rank one: its second singular value is {share:.1%} of"):
        import_official([written(tmp_path / "w.pt", {3: w})], identity)


def test_a_tail_of_many_small_values_is_not_rank_one_either(tmp_path: Path, identity: Base) -> None:
    """Each below the tolerance by itself; together they are a tenth of W."""
    noise = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    leading = torch.outer(noise[0], noise[1])
    with pytest.raises(InputError, match="not of rank one"):
        import_official([written(tmp_path / "w.pt", {1: leading + 0.0025 * noise})], identity)


class Canary:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["zip", "old", "bare"])
def test_a_file_that_wants_code_is_refused_and_nothing_is_run(tmp_path: Path, identity: Base, how: str) -> None:
    file, canary = tmp_path / "w_layer_1.pt", tmp_path / "executed"
    value = {1: authors_matrix(1), "more": Canary(canary)}
    if how == "bare":
        file.write_bytes(pickle.dumps(value["more"]))
    else:
        torch.save(value, file, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(InputError, match=r"cannot be read as tensors alone") as error:
        import_official([file], identity)
    assert "\n" not in str(error.value)
    assert not canary.exists()


def test_damaged_files_are_one_line(tmp_path: Path, identity: Base) -> None:
    good = written(tmp_path / "w.pt", {1: authors_matrix(1)}).read_bytes()
    for name, content in (("empty", b""), ("text", b"hello"), ("half", good[: len(good) // 2]), ("zip", good[:-30])):
        file = tmp_path / f"{name}.pt"
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.pt: cannot be read as tensors alone"):
            import_official([file], identity)
    with pytest.raises(InputError, match=r"none.pt: no such file"):
        import_official([tmp_path / "none.pt"], identity)


def bad(value: float) -> Tensor:
    w = authors_matrix(1)
    w[2, 3] = value
    return w


WRONG: dict[str, tuple[object, str]] = {
    "d": ({1: torch.ones(D + 1, D + 1)}, rf"layer 1: \({D + 1}, {D + 1}\), this base needs \({D}, {D}\)"),
    "vector": ({1: torch.ones(D)}, r"layer 1: \(\d+,\), this base needs"),
    "nan": ({1: bad(torch.nan)}, "layer 1: a value is not finite"),
    "inf": ({1: bad(torch.inf)}, "layer 1: a value is not finite"),
    "integers": ({1: torch.ones(D, D, dtype=torch.int64)}, "layer 1: a torch.int64 tensor"),
    "complex": ({1: torch.ones(D, D, dtype=torch.complex64)}, "layer 1: a torch.complex64 tensor"),
    "sparse": ({1: torch.eye(D).to_sparse()}, "layer 1: a torch.float32 tensor"),
    "layer": ({tiny.LAYERS: authors_matrix(1)}, f"layer {tiny.LAYERS}: this base has {tiny.LAYERS} layers"),
    "negative": ({-1: authors_matrix(1)}, "where a matrix of a layer is expected"),
    "name": ({"w": authors_matrix(1)}, "'w' does not say which layer it is"),
    "twice": ({1: authors_matrix(1), "1": authors_matrix(1)}, "layer 1 is given twice"),
    "nested": ({1: [authors_matrix(1)]}, "holds a list where a matrix of a layer is expected"),
    "number": (3.5, "holds a float where a matrix of a layer is expected"),
    "one": (authors_matrix(1), "'file' does not say which layer it is"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_matrix_of_this_base_is_one_line(tmp_path: Path, identity: Base, what: str) -> None:
    value, message = WRONG[what]
    with pytest.raises(InputError, match=message) as error:
        import_official([written(tmp_path / "file.pt", value)], identity)
    assert str(error.value).startswith(f"{tmp_path / 'file.pt'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("strength", [0.0, -0.25, float("nan"), float("inf")])
def test_a_strength_with_their_sign_is_refused(tmp_path: Path, identity: Base, strength: float) -> None:
    with pytest.raises(InputError, match=r"^--strength .*: give the authors' strength without its sign, above 0$"):
        import_official([tmp_path / "w.pt"], identity, strength=strength)
