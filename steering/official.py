"""The authors' files as a bundle: the dense d × d matrix W of each layer becomes two vectors.

Their steered layer computes h ← h + λ W h_last on all prompt positions, with λ < 0: their W points from erasure to
recall, and our direction points the other way. W has rank one up to rounding, because every target of the fit is the
same direction. Its leading singular triple (σ, p, q) gives

    W = σ p qᵀ,      r = −√σ p,      u = √σ q,      so that      h + λ' (uᵀh_last) r = h − λ' W h_last,      λ' = −λ > 0

So a linear gate of shape identity, on all prompt positions and with K = 1, steers as W does. W does not say how σ and
the sign are divided between r and u. Only their product has a meaning; a threshold on g would have none.

The bundle marks what the files do not say. ``n_forget`` and ``n_retain`` are 0, there are no statistics, and
``template_sha256`` is all zeros. ``created`` is the day of the import. ``method`` holds what the authors publish for
the family; ``method.calibration`` says that the bundle was imported, and how much of W the two vectors leave out.

Files are ``.pt``. They are read as tensors only (``weights_only``), and memory-mapped where the format allows it. No
code in them runs. Source: MLLMEraser, arXiv 2510.04217, stage 2, and the matrices its authors' code writes.
"""

from __future__ import annotations

import datetime
import math
import platform
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import mllmeraser
from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import REQUEST_ID, Base, GateForm, Metadata, Method, RemovalRequest, tensor_name
from mllmeraser.errors import InputError
from mllmeraser.steering.recipe import PAPER, PAPER_BY_FAMILY

# The largest ‖W − σ p qᵀ‖ / ‖W‖ (Frobenius). Rounding a rank-one matrix to bfloat16 leaves 0.0017, to float16 0.0002.
RANK_ONE_TOLERANCE = 3e-3
STRENGTH = 0.25  # the authors' λ for most tasks, without its sign
UNKNOWN_SHA256 = "0" * 64


@dataclass(frozen=True)
class Imported:
    """A bundle. ``residuals[l]`` is what rank one leaves out of W at layer l; ``skipped`` are layers where W is 0."""

    bundle: Bundle
    residuals: dict[int, float]
    skipped: tuple[int, ...]

    def document(self) -> dict[str, Any]:
        """The JSON document of ``import-official --json`` (``docs/json.md``)."""
        meta = self.bundle.metadata
        return {
            "schema": 1,
            "request": meta.requests[0].id,
            "layers": meta.layers,
            "skipped": list(self.skipped),
            "strength": meta.strength,
            "residuals": {str(layer): residual for layer, residual in self.residuals.items()},
            "dense_bytes": len(meta.layers) * meta.base.hidden_size**2 * 4,
            "tensor_bytes": sum(tensor.nbytes for tensor in self.bundle.tensors.values()),
        }

    def lines(self) -> list[str]:
        """The same, for a person."""
        found = self.document()
        skipped = f"; no steering at {', '.join(map(str, self.skipped))}, whose matrix is zero" if self.skipped else ""
        return [
            f"request   {found['request']}, strength {found['strength']:g}",
            f"layers    {', '.join(map(str, found['layers']))}{skipped}",
            f"rank one  within {max(self.residuals.values()):.1e} of the matrices' norm",
            f"size      {found['tensor_bytes']:,} bytes for {found['dense_bytes']:,} of dense fp32 matrices",
        ]


def import_official(
    files: Sequence[Path],
    base: Base,
    *,
    request_id: str = "request-1",
    strength: float = STRENGTH,
    row_vectors: bool = False,
) -> Imported:
    """Make a bundle of the authors' matrices.

    Args:
        files: each holds a dict {layer: W}, a list of W by layer, a tensor (l, d, d), or one W; the name of the file
            then says the layer (``…layer_17.pt``).
        base: the model that the matrices were made for.
        strength: λ' > 0, their λ without its sign.
        row_vectors: the matrices are made for h W instead of W h.

    Raises:
        InputError: a file is missing, damaged or needs code; a matrix is not d × d, not finite or not of rank one; a
            layer is unknown or given twice; or every matrix is zero.
    """
    if not re.fullmatch(REQUEST_ID, request_id):
        raise InputError(f"--request-id {request_id!r}: give up to 64 letters, digits, dots, dashes or underscores")
    if not 0 < strength < math.inf:
        raise InputError(f"--strength {strength:g}: give the authors' strength without its sign, above 0")
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    residuals: dict[int, float] = {}
    skipped: list[int] = []
    for where, layer, matrix in _matrices(files):
        if layer >= base.num_layers:
            raise InputError(
                f"{where}: layer {layer}: this base has {base.num_layers} layers, 0 to {base.num_layers - 1}"
            )
        if layer in residuals or layer in skipped:
            raise InputError(f"{where}: layer {layer} is given twice; give one matrix a layer")
        _check_matrix(where, layer, matrix, base.hidden_size)
        if not bool(matrix.any()):
            skipped.append(layer)
            continue
        r, u, residuals[layer] = rank_one(matrix.T if row_vectors else matrix, f"{where}: layer {layer}")
        tensors[tensor_name(0, layer, "direction")] = -r.float()[None].numpy()
        tensors[tensor_name(0, layer, "gate")] = u.float().numpy()
    if not residuals:
        raise InputError(f"{files[0]}: every matrix is zero, so there is nothing to steer; give others")
    metadata = _metadata(base, sorted(residuals), request_id, strength, max(residuals.values()))
    return Imported(Bundle(metadata, tensors), residuals, tuple(sorted(skipped)))


def rank_one(matrix: Tensor, where: str) -> tuple[Tensor, Tensor, float]:
    """r and u (d,), fp64, with r uᵀ ≈ W (d, d), and the residual ‖W − r uᵀ‖ / ‖W‖.

    A few sweeps of subspace iteration find them. Each sweep multiplies what is off the leading direction by (σ₂/σ₁)². A
    full decomposition would take a minute a layer at d = 4096.

    Raises:
        InputError: W is not of rank one within ``RANK_ONE_TOLERANCE``.
    """
    w = matrix.double()
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(len(w), min(len(w), 8), dtype=torch.float64, generator=generator)
    for _ in range(4):
        basis = torch.linalg.qr(w.T @ torch.linalg.qr(w @ basis).Q).Q
    left, sigma, right = torch.linalg.svd(w @ basis, full_matrices=False)
    r, u = sigma[0].sqrt() * left[:, 0], sigma[0].sqrt() * (basis @ right[0])
    if u[u.abs().argmax()] < 0:  # (−r)(−u)ᵀ is the same: fix the sign, so that the same files give the same bytes
        r, u = -r, -u
    residual = float(torch.linalg.matrix_norm(w - torch.outer(r, u)) / torch.linalg.matrix_norm(w))
    if not residual <= RANK_ONE_TOLERANCE:
        raise InputError(
            f"{where}: the matrix is not of rank one: its second singular value is {float(sigma[1] / sigma[0]):.1%} of "
            "the first; only matrices with one erasure direction a layer can be imported"
        )
    return r, u, residual


def _check_matrix(where: Path, layer: int, matrix: Tensor, d: int) -> None:
    if tuple(matrix.shape) != (d, d):
        raise InputError(f"{where}: layer {layer}: {tuple(matrix.shape)}, this base needs {(d, d)}; give its own files")
    if matrix.layout != torch.strided or matrix.device.type != "cpu" or not matrix.is_floating_point():
        raise InputError(f"{where}: layer {layer}: a {matrix.dtype} tensor ({matrix.layout}); save it as dense floats")
    if not bool(matrix.isfinite().all()):
        raise InputError(f"{where}: layer {layer}: a value is not finite; make the file again")


def _matrices(files: Sequence[Path]) -> Iterator[tuple[Path, int, Tensor]]:
    """(file, layer, W), one file after the other; W is not checked yet."""
    for path in files:
        held = _read(path)
        if isinstance(held, Tensor) and held.ndim == 2:
            yield path, _block_in(path.stem, path), held.detach()
            continue
        if isinstance(held, dict):
            named = [(key if type(key) is int else _block_in(str(key), path), value) for key, value in held.items()]
        elif isinstance(held, list | tuple) or (isinstance(held, Tensor) and held.ndim == 3):
            named = list(enumerate(held))
        else:
            named = [(-1, held)]
        for layer, value in named:
            if value is None:  # a list may leave layers out
                continue
            if not isinstance(value, Tensor) or layer < 0:
                raise InputError(
                    f"{path}: holds a {type(value).__name__} where a matrix of a layer is expected; "
                    "give a dict {layer: matrix}, a list by layer, or one matrix a file"
                )
            yield path, layer, value.detach()


def _block_in(text: str, path: Path) -> int:
    """17 of ``…layer_17``, or the only number in the text."""
    numbers = re.findall(r"layers?[._-]?([0-9]{1,4})(?![0-9])", text) or re.findall(r"[0-9]{1,4}", text)
    if len(numbers) != 1:
        raise InputError(f"{path}: {text!r} does not say which layer it is; name it layer_17, for example")
    return int(numbers[0])


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the .pt files that the authors' code wrote")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception:  # a hostile or damaged file can make the reader raise anything
        raise InputError(
            f"{path}: cannot be read as tensors alone (it is damaged, or wants code to run, which is never done); "
            "save it again with torch.save({layer: matrix}, FILE)"
        ) from None


def _metadata(base: Base, layers: list[int], request_id: str, strength: float, residual: float) -> Metadata:
    paper = {**PAPER, **PAPER_BY_FAMILY.get(base.model_type, {})}
    request = RemovalRequest(
        id=request_id,
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        n_forget=0,
        n_retain=0,
        strength=strength,
        statistics={},
    )
    method = Method(
        null_space=paper["null_space"],
        ridge=paper["ridge"],
        ridge_scale=paper["ridge_scale"],
        direction=paper["direction"],
        perturbation=paper["perturbation"],
        preset="paper",
        calibration={"imported": True, "rank_one_residual": residual},
    )
    return Metadata(
        base=base,
        requests=[request],
        layers=layers,
        gate_layer=None,
        strength=strength,
        gate=GateForm(kind="linear", shape="identity", threshold=None),
        prompt_positions="all",
        reply_steps=1,
        method=method,
        template_sha256=UNKNOWN_SHA256,
        versions={
            "mllmeraser": mllmeraser.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        seed=0,
    )
