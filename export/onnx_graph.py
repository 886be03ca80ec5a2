"""Exports a JAX function as an ONNX model: traces it, folds it, writes it and checks it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

import bottlefit_jax
from export.onnx_fold import fold
from export.onnx_operations import Node, Shape
from export.onnx_trace import ordered, trace
from export.tensorrt_operators import check_operators

OPSET, IR_VERSION = 13, 8  # the newest that TensorRT 8.2 reads
BATCH = "batch"


def to_onnx(
    function: Callable[..., Any],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
    *,
    name: str,
    dynamic_batch: bool,
) -> onnx.ModelProto:
    """Export a function whose parameters are constants.

    Args:
        function: takes the inputs in this order, images as `[B, h, w, c]`, and computes in float32.
        inputs: name -> shape and type.
        outputs: a name for each leaf of the result.
        name: of the graph.
        dynamic_batch: make the first axis of every input `batch`, of any length, instead of the length in `inputs`.

    Returns:
        A model whose inputs and outputs have the function's shapes and types; the same bytes every time.

    Raises:
        UserError: an operation cannot be translated, or TensorRT 8.2 or 10 does not parse it.
    """
    if dynamic_batch:
        (batch,) = jax.export.symbolic_shape(BATCH)
        inputs = {key: jax.ShapeDtypeStruct((batch, *spec.shape[1:]), spec.dtype) for key, spec in inputs.items()}
    results = trace(function, inputs)
    writer = _Writer()
    writer.write(fold([result.node for result in results]), outputs)
    graph = helper.make_graph(
        writer.nodes,
        name,
        [_declare(key, spec.shape, spec.dtype) for key, spec in inputs.items()],
        [_declare(key, result.shape, result.dtype) for key, result in zip(outputs, results, strict=True)],
        writer.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bottlefit_jax",
        producer_version=bottlefit_jax.__version__,
    )
    check_operators(model)
    onnx.checker.check_model(model, full_check=True)  # with strict shape inference
    return model


def _declare(name: str, shape: Shape, dtype: Any) -> onnx.ValueInfoProto:
    """Declare an input or output; an axis that is not a number is the batch."""
    axes = [axis if isinstance(axis, int) else BATCH for axis in shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), axes)


class _Writer:
    """Collects ONNX's nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def write(self, results: Sequence[Node], names: Sequence[str]) -> None:
        """Write all nodes that the results need, and give the results these names."""
        output_names = dict(zip(reversed(results), reversed(names), strict=True))
        tensors: dict[Node, str] = {}
        for node in ordered(results):
            if node.op == "Input":
                tensors[node] = node.attributes["name"]
            else:
                tensors[node] = self._write(node, [tensors[source] for source in node.inputs], output_names.get(node))
        for node, name in zip(results, names, strict=True):
            if tensors[node] != name:  # an input, or an output with two names
                self._append("Identity", [tensors[node]], name, {})

    def _write(self, node: Node, inputs: list[str], output: str | None) -> str:
        """Write one node and return the name of its result."""
        attributes = dict(node.attributes)
        if node.op == "Affine":
            factor, shift = node.weights
            constants = self._constants(factor, shift, np.zeros_like(shift), np.ones_like(factor))
            return self._append("BatchNormalization", [*inputs, *constants], output, {"epsilon": 0.0})
        if node.op in ("Rows", "Columns"):
            matrix = self._constants(*node.weights)
            return self._append("MatMul", [*matrix, *inputs] if node.op == "Rows" else [*inputs, *matrix], output, {})
        if node.op == "Clip":
            bounds = [self._constants(attributes[key])[0] if key in attributes else "" for key in ("min", "max")]
            return self._append("Clip", [*inputs, *bounds] if bounds[1] else [*inputs, bounds[0]], output, {})
        if "pads" in attributes:
            pads = [before for before, _ in attributes["pads"]] + [after for _, after in attributes["pads"]]
            if node.op == "Pad":
                pads = [0, 0, *pads[:2], 0, 0, *pads[2:]]
                return self._append("Pad", [*inputs, *self._constants(pads, dtype=np.int64)], output, {})
            attributes["pads"] = pads
        if node.op == "Cast":
            attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(attributes["to"]))
        weights = node.weights if node.weights and np.any(node.weights[-1]) else node.weights[:1]
        return self._append(node.op, [*inputs, *self._constants(*weights)], output, attributes)

    def _append(self, kind: str, inputs: Sequence[str], output: str | None, attributes: Mapping[str, Any]) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **attributes))
        return output or name

    def _constants(self, *values: Any, dtype: Any = np.float32) -> list[str]:
        names = []
        for value in values:
            names.append(f"constant_{len(self.constants)}")
            self.constants.append(numpy_helper.from_array(np.array(value, dtype, order="C"), names[-1]))
        return names
