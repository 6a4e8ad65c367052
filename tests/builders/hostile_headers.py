"""Safetensors files as no writer makes them: a header of our own, and bytes after it."""

from __future__ import annotations

import json
from pathlib import Path


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> None:
    """Replace ``path``; ``header`` is dumped unless it is bytes, ``length`` is what the file says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.unlink(missing_ok=True)
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def tensor(start: int, end: int, dtype: str = "F32", shape: tuple[int, ...] | None = None) -> dict[str, object]:
    """A header's entry."""
    size = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}[dtype]
    return {"dtype": dtype, "shape": list(shape or ((end - start) // size,)), "data_offsets": [start, end]}


HUGE = 1 << 62
# What a header can lie about; the file always holds 16 bytes of data.
LIES: dict[str, tuple[object, int | None]] = {
    "a header longer than the file": ({"a": tensor(0, 16)}, 10_000),
    "a header of an absurd length": ({"a": tensor(0, 16)}, HUGE),
    "a header that ends in the middle": ({"a": tensor(0, 16)}, 9),
    "no header": (b"", None),
    "a header that is no JSON": (b"{not json}", None),
    "a header that is a list": ([], None),
    "tensors that overlap": ({"a": tensor(0, 16), "b": tensor(8, 16)}, None),
    "a tensor twice": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                       b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', None),
    "a tensor beyond the end": ({"a": tensor(0, 4096)}, None),
    "offsets that run backwards": ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, None),
    "a shape that does not fit its bytes": ({"a": tensor(0, 16, shape=(1 << 40, 1 << 40))}, None),
    "a hole between tensors": ({"a": tensor(0, 4), "b": tensor(8, 16)}, None),
    "a dtype of its own": ({"a": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 16]}}, None),
}  # fmt: skip
