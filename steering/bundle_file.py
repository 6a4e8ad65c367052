"""Reading a bundle file with numpy: for graphs and other runtimes, where there may be no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from mllmeraser.errors import InputError
from mllmeraser.steering.metadata import METADATA_KEY, Metadata, check_forms, not_finite, parse_metadata

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class AnyBundle(Protocol):
    """A bundle with its tensors as torch's or as numpy's."""

    @property
    def metadata(self) -> Metadata:
        """Its metadata."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Its tensors, on the processor."""


@dataclass(frozen=True)
class BundleFile:
    """Metadata and tensors of a bundle, consistent with each other."""

    metadata: Metadata
    tensors: dict[str, npt.NDArray[np.float32]]


def read_bundle(path: Path) -> BundleFile:
    """Read and check a bundle: schema, names, shapes, dtypes and finite values.

    Raises:
        InputError: the file is missing, truncated, not safetensors, not a bundle, or inconsistent.
    """
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
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
    except SafetensorError as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({str(error).splitlines()[0]}); copy it again, or make it anew "
            f"with: mllmeraser compute BASE --forget F --retain R -o {path} --overwrite"
        ) from None
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise not_finite(name, str(path))
    return BundleFile(metadata, tensors)


def _form(tensor: Any) -> tuple[str, tuple[int, ...]]:
    dtype = tensor.get_dtype()
    return _DTYPES.get(dtype, dtype), tuple(tensor.get_shape())
