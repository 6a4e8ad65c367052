"""The bundle: one safetensors file of kilobytes that holds what to apply, and nothing about whom.

For request i and layer l (``d`` hidden size, ``p`` what the gate reads: d, or the projection's dimensions, ``K`` reply
steps, ``J`` landmarks), fp32 but for the signs:

=======================================  =======  =====================================================
``requests.{i}.layers.{l}.states``        (K, d)   m_k of the edit ``seal``: what a sealed state becomes
``requests.{i}.layers.{l}.direction``     (K, d)   r_k of the edit ``add``: what a state is pushed along
``requests.{i}.layers.{l}.gate``          (p,)     u of a linear gate
``requests.{i}.layers.{l}.landmarks``     (J, p)   c_j of a kernel gate
``requests.{i}.layers.{l}.weights``       (J,)     w_j of a kernel gate
``requests.{i}.layers.{l}.bandwidth``     ()       m² of a kernel gate
``requests.{i}.layers.{l}.projection``    (p, d)   R, random signs (int8) that the gate reads states through
=======================================  =======  =====================================================

The tensors of a shared gate (``gate_layer``) lie under that layer only. The metadata key ``mllmeraser`` holds one JSON
object, :class:`~mllmeraser.bundle.metadata.Metadata`. It holds no subject, question, answer, path or picture. The
tensors are numpy's: graphs and exports need no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mllmeraser.bundle.metadata import METADATA_KEY, SCHEMA, Metadata, check_forms, parse_metadata, steering_requests
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.errors import InputError

_DTYPES = {"float32": "F32", "int8": "I8"}  # numpy's words, and those of safetensors


@dataclass(frozen=True)
class Bundle:
    """Metadata and tensors (numpy, by name) of one bundle."""

    metadata: Metadata
    tensors: Mapping[str, npt.NDArray[Any]]

    def steering(self) -> dict[str, object]:
        """``steering`` in the ``config.json`` of this bundle's checkpoint, but for the file's name and seal."""
        return {"schema": SCHEMA, "requests": steering_requests(self.metadata)}

    def check(self, where: str) -> None:
        """Check that metadata and tensors fit each other, and that every value is finite.

        Args:
            where: the bundle's name in messages.

        Raises:
            InputError: they do not fit, or a value is not finite.
        """
        forms = {name: (_DTYPES.get(str(a.dtype), str(a.dtype)), a.shape) for name, a in self.tensors.items()}
        check_forms(self.metadata, forms, where)
        for name, array in self.tensors.items():
            if not np.isfinite(array).all():
                raise InputError(f"{where}: tensor {name} holds a value that is not finite; compute the bundle again")


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write a bundle, whole or not at all. Equal bundles give equal bytes.

    Raises:
        InputError: tensors and metadata do not fit each other.

    Example::

        save_bundle(mllmeraser.compute("base", "forget.jsonl", "retain.jsonl").bundle, Path("request.safetensors"))
    """
    bundle.check(str(path))
    text = json.dumps(bundle.metadata.model_dump(mode="json", by_alias=True), sort_keys=True)
    tensors = {name: np.asarray(bundle.tensors[name], order="C") for name in sorted(bundle.tensors)}
    write_atomically(path, save(tensors, metadata={METADATA_KEY: text}))


def load_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle: schema, names, shapes, dtypes and finite values. Needs no torch.

    Raises:
        InputError: the file is missing, truncated, not safetensors, not a bundle, or inconsistent.

    Example::

        bundle = mllmeraser.load_bundle("request.safetensors")
        bundle.metadata.requests[0].id
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; make a bundle with: mllmeraser compute BASE --forget F --retain R -o {path}"
        )
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            if text is None:
                raise InputError(
                    f"{path}: a safetensors file, but not a steering bundle (no {METADATA_KEY!r} metadata); "
                    "give the file that mllmeraser compute -o wrote"
                )
            metadata = parse_metadata(text, path)
            check_forms(metadata, {name: _form(file.get_slice(name)) for name in file.offset_keys()}, str(path))
            bundle = Bundle(metadata, {name: file.get_tensor(name) for name in file.offset_keys()})
    except SafetensorError as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({str(error).splitlines()[0]}); copy it again, or make it anew "
            f"with: mllmeraser compute BASE --forget F --retain R -o {path} --overwrite"
        ) from None
    bundle.check(str(path))
    return bundle


def load_bundles(bundles: Sequence[str | Path | Bundle]) -> list[Bundle]:
    """The bundles of a list that holds bundles, their files, or both; in its order.

    Raises:
        InputError: a file is not a bundle, or one bundle is given instead of a list.
    """
    if isinstance(bundles, (str, Path, Bundle)):
        raise InputError(f"{bundles if isinstance(bundles, (str, Path)) else 'one bundle'}: give a list of bundles")
    return [bundle if isinstance(bundle, Bundle) else load_bundle(bundle) for bundle in bundles]


def _form(tensor: Any) -> tuple[str, tuple[int, ...]]:
    return tensor.get_dtype(), tuple(tensor.get_shape())
