"""Make nodes: a thin layer over ``onnx_ir``. Every name begins with ``mllmeraser.``, and equal constants are shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

PREFIX = "mllmeraser"


class NodeBuilder:
    """Collects nodes and initializers; :meth:`into` puts them into a graph."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Add a node with one output; that output."""
        name = f"{PREFIX}.{len(self.nodes)}.{op_type}"
        output = ir.Value(name=f"{name}.out")
        attrs = ir.convenience.convert_attributes(attributes)
        self.nodes.append(ir.Node(domain, op_type, list(inputs), attrs, outputs=[output], name=name))
        return output

    def const(self, value: npt.ArrayLike, dtype: type[np.generic]) -> ir.Value:
        """A constant; equal constants share one initializer."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.tensor(f"constant.{len(self._constants)}", array)
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 constant, for axes, sizes and slices."""
        return self.const(values, np.int64)

    def float(self, value: float) -> ir.Value:
        """A scalar fp32 constant."""
        return self.const(value, np.float32)

    def tensor(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        """A named initializer, ``mllmeraser.<name>``."""
        full = f"{PREFIX}.{name}"
        tensor = ir.Tensor(array, name=full)
        value = ir.Value(name=full, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._initializers.append(value)
        return value

    def sum(self, value: ir.Value, axis: int, keepdims: bool = True) -> ir.Value:
        """ReduceSum over one axis. The axis is an input of the node, as opset 13 has it."""
        return self.op("ReduceSum", value, self.ints(axis), keepdims=int(keepdims))

    def to_float(self, value: ir.Value) -> ir.Value:
        """Cast to fp32."""
        return self.op("Cast", value, to=ir.DataType.FLOAT.value)

    def to_int(self, value: ir.Value) -> ir.Value:
        """Cast to int64."""
        return self.op("Cast", value, to=ir.DataType.INT64.value)

    def into(self, graph: ir.Graph) -> None:
        """Add everything to ``graph``, and sort its nodes into a valid order."""
        for value in self._initializers:
            graph.register_initializer(value)
        graph.extend(self.nodes)
        graph.sort()
