"""Translates primitives of JAX to ONNX, for the few that our networks use.

ONNX has channels first, our functions have them last. So a `Value` records where each of its axes is in the ONNX
tensor, and a transpose only changes that record.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Shape = tuple[Any, ...]  # the batch may be a symbol of jax.export
NHWC, NCHW = (0, 1, 2, 3), (0, 3, 1, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One operator with one result.

    Args:
        op: ONNX's name, or one of ours: `Input`, `Affine` (axis 1 times a vector plus a vector), `Rows` (a matrix
            times the last two axes), `Columns` (the last two axes times a matrix).
        inputs: the nodes whose results it takes.
        attributes: as ONNX spells them, but `pads` is ((top, bottom), (left, right)), and `Clip` has `min` and `max`.
        weights: float64 in ONNX's layout; they follow the inputs.
    """

    op: str
    inputs: tuple["Node", ...] = ()
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Value:
    """A variable of the jaxpr: axis `order[i]` of its `shape` is axis i of the node's result."""

    node: Node
    shape: Shape
    order: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """An equation of the jaxpr: its arguments (at least one is a `Value`), parameters, and the result's shape."""

    arguments: Sequence[Value | np.ndarray]
    params: Mapping[str, Any]
    shape: Shape

    def split(self, *, commutes: bool = True) -> tuple[Value, np.ndarray, bool]:
        """Return the tensor, the constant, and whether the tensor comes first."""
        first, second = self.arguments
        if isinstance(first, Value) and not isinstance(second, Value):
            return first, second, True
        if isinstance(second, Value) and not isinstance(first, Value) and commutes:
            return second, first, False
        raise Unsupported("only supported for a tensor and a constant")

    def image(self) -> Value:
        """Return the first argument, which must be an image with channels first in ONNX."""
        value = self.arguments[0]
        if not isinstance(value, Value) or value.order != NCHW:
            raise Unsupported("only supported for a tensor [batch, height, width, channels]")
        return value

    def make(self, op: str, *inputs: Node, order: tuple[int, ...] = NCHW, **attributes: Any) -> Value:
        """Make the result, with a new node without weights."""
        return Value(Node(op, inputs, attributes), self.shape, order)


class Unsupported(Exception):
    """Raised by an operation that has no ONNX for its arguments; `onnx_trace` reports it with its place."""


def _convert(step: Step) -> Value:
    """Convert to float32; `onnx_trace` refuses other types."""
    (value,) = step.arguments
    assert isinstance(value, Value)
    if value.node.op != "Input" or value.node.attributes["dtype"] == np.float32:
        return value
    return step.make("Cast", value.node, order=value.order, to=np.float32)


def _add(step: Step) -> Value:
    left, right = step.arguments
    if not (isinstance(left, Value) and isinstance(right, Value)):
        value, constant, _ = step.split()
        return _affine(value, 1.0, constant)
    if left.order != right.order or left.shape != right.shape:
        raise Unsupported(f"not supported for {left.shape} and {right.shape}")
    return step.make("Add", left.node, right.node, order=left.order)


def _subtract(step: Step) -> Value:
    value, constant, first = step.split()
    return _affine(value, 1.0, -constant) if first else _affine(value, -1.0, constant)


def _multiply(step: Step) -> Value:
    value, constant, _ = step.split()
    return _affine(value, constant, 0.0)


def _divide(step: Step) -> Value:
    value, constant, _ = step.split(commutes=False)
    return _affine(value, 1 / constant.astype(np.float64), 0.0)


def _affine(value: Value, factor: Any, shift: Any) -> Value:
    """Compute `value * factor + shift`; factor and shift have one number for each channel or one for all."""
    if value.order not in (NCHW, (0, 1)):
        raise Unsupported(f"not supported for {value.shape} with the order of axes {value.order}")
    weights = []
    for constant in (factor, shift):
        numbers = np.asarray(constant, np.float64)
        if numbers.size > 1 and numbers.shape[-1] != numbers.size:
            raise Unsupported(f"a constant of shape {numbers.shape} must be one number for each channel")
        weights.append(np.broadcast_to(numbers.reshape(-1), value.shape[-1:]))
    return dataclasses.replace(value, node=Node("Affine", (value.node,), {}, tuple(weights)))


def _bound(side: str) -> Callable[[Step], Value]:
    """Make the operation that bounds a tensor by a number from below (`min`) or from above (`max`)."""

    def operation(step: Step) -> Value:
        value, number, _ = step.split()
        if number.size != 1:
            raise Unsupported(f"a constant of shape {number.shape} must be one number")
        if side == "min" and number.item() == 0:
            return step.make("Relu", value.node, order=value.order)
        return step.make("Clip", value.node, order=value.order, **{side: number.item()})

    return operation


def _pad(step: Step) -> Value:
    value, number = step.image(), step.arguments[1]
    batch, *spatial, channels = step.params["padding_config"]
    plain = all(before >= 0 and after >= 0 and not inside for before, after, inside in spatial)
    if isinstance(number, Value) or number.item() != 0 or not plain or any((*batch, *channels)):
        raise Unsupported("only supported with zeros around an image")
    return step.make("Pad", value.node, pads=[(before, after) for before, after, _ in spatial])


def _convolution(step: Step) -> Value:
    value, (_, kernel), params = step.image(), step.arguments, step.params
    numbers = params["dimension_numbers"]
    plain = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == (NCHW, (3, 2, 0, 1), NCHW)
    dilated = any(n != 1 for n in (*params["lhs_dilation"], *params["rhs_dilation"]))
    if isinstance(kernel, Value) or not plain or dilated or params["batch_group_count"] != 1:
        raise Unsupported("only supported for NHWC with a constant HWIO kernel and no dilation")
    weights = kernel.astype(np.float64).transpose(3, 2, 0, 1)
    attributes = {
        "kernel_shape": weights.shape[2:],
        "strides": params["window_strides"],
        "pads": params["padding"],
        "group": params["feature_group_count"],
    }
    return Value(Node("Conv", (value.node,), attributes, (weights, np.zeros(len(weights)))), step.shape, NCHW)


def _window(step: Step, op: str, **attributes: Any) -> Value:
    params = step.params
    kernel, strides, pads = params["window_dimensions"], params["window_strides"], params["padding"]
    dilated = any(n != 1 for n in (*params["base_dilation"], *params["window_dilation"]))
    if (kernel[0], kernel[-1]) != (1, 1) or any((*pads[0], *pads[-1])) or dilated:
        raise Unsupported("only supported over rows and columns, without dilation")
    return step.make(
        op, step.image().node, kernel_shape=kernel[1:3], strides=strides[1:3], pads=pads[1:3], **attributes
    )


def _window_max(step: Step) -> Value:
    return _window(step, "MaxPool")


def _window_sum(step: Step) -> Value:
    """Sum as an average times the window's size; the division that follows cancels the factor."""
    average = _window(step, "AveragePool", count_include_pad=1)
    return _affine(average, math.prod(step.params["window_dimensions"]), 0.0)


def _sum(step: Step) -> Value:
    """Sum over rows and columns, as in `_window_sum`."""
    value = step.image()
    if tuple(step.params["axes"]) != (1, 2):
        raise Unsupported("only supported over rows and columns")
    average = Node("GlobalAveragePool", (value.node,))
    return _affine(step.make("Flatten", average, order=(0, 1), axis=1), value.shape[1] * value.shape[2], 0.0)


def _concatenate(step: Step) -> Value:
    values = [value for value in step.arguments if isinstance(value, Value)]
    if len(values) != len(step.arguments) or len({value.order for value in values}) != 1:
        raise Unsupported("only supported for tensors with the same order of axes")
    order = values[0].order
    axis = order.index(step.params["dimension"])
    return step.make("Concat", *(value.node for value in values), order=order, axis=axis)


def _transpose(step: Step) -> Value:
    (value,) = step.arguments
    assert isinstance(value, Value)
    return Value(value.node, step.shape, tuple(step.params["permutation"].index(axis) for axis in value.order))


def _product(step: Step) -> Value:
    """Translate a fully connected layer, a transposed convolution, or a matrix applied to one axis of an image."""
    value, constant, first = step.split()
    axes, batch = step.params["dimension_numbers"]
    (axis,), (other,) = axes if first else reversed(axes)
    weights = constant.astype(np.float64)
    if len(value.shape) == constant.ndim == 2 and (value.order, axis) == ((0, 1), 1):
        weights = weights if other == 0 else weights.T
        node = Node("Gemm", (value.node,), {}, (weights, np.zeros(weights.shape[1])))
        return Value(node, step.shape, (0, 1) if first else (1, 0))
    if constant.ndim == 4 and value.order == NCHW and (axis, other) == (3, 2):
        # A pixel becomes kh x kw pixels. ONNX's axes are [b, o, h, kh, w, kw]; `_reshape` joins them.
        (kh, kw, _, channels), kernel = weights.shape, weights.transpose(2, 3, 0, 1)
        attributes = {"kernel_shape": (kh, kw), "strides": (kh, kw)}
        node = Node("ConvTranspose", (value.node,), attributes, (kernel, np.zeros(channels)))
        return Value(node, step.shape, (0, 5, 1, 3, 2, 4) if first else (3, 2, 4, 0, 5, 1))
    if len(value.shape) == 4 and constant.ndim == 2 and value.order.index(axis) >= 2 and not any(batch):
        matrix, kept = weights if other == 1 else weights.T, [a for a in range(4) if a != axis]
        rows = value.order.index(axis) == 2
        node = Node("Rows" if rows else "Columns", (value.node,), {}, (matrix if rows else matrix.T,))
        result_axes = [*kept, axis] if first else [axis, *kept]  # in terms of the tensor's
        return Value(node, step.shape, tuple(result_axes.index(a) for a in value.order))
    raise Unsupported(f"not supported for {value.shape} and {constant.shape}")


def _reshape(step: Step) -> Value:
    (value,) = step.arguments
    assert isinstance(value, Value)
    if value.order == (0, 5, 1, 2, 3, 4):
        b, h, kh, w, kw, o = value.shape
        if step.shape == (b, h * kh, w * kw, o):
            return Value(value.node, step.shape, NCHW)
    if value.order == NCHW and len(step.shape) == 6:
        b, h, w, kh, kw, o = step.shape
        if kh == kw and value.shape == (b, h, w, kh * kw * o):  # each pixel's channels become kh x kw pixels, as above
            node = Node("DepthToSpace", (value.node,), {"blocksize": kh, "mode": "DCR"})
            return Value(node, step.shape, (0, 5, 1, 3, 2, 4))
    raise Unsupported(f"not supported from {value.shape} to {step.shape}")


OPERATIONS: Mapping[str, Callable[[Step], Value]] = {
    "add": _add,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "div": _divide,
    "dot_general": _product,
    "max": _bound("min"),
    "min": _bound("max"),
    "mul": _multiply,
    "pad": _pad,
    "reduce_sum": _sum,
    "reduce_window_max": _window_max,
    "reduce_window_sum": _window_sum,
    "reshape": _reshape,
    "sub": _subtract,
    "transpose": _transpose,
}
