"""Turns a JAX function into a graph of ONNX operators by a walk over its jaxpr, which computes constant parts."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bottlefit_jax.errors import UserError
from export.onnx_operations import NCHW, NHWC, OPERATIONS, Node, Shape, Step, Unsupported, Value
from export.tracing import plain_convolutions

CALLS = ("jit", "custom_jvp_call", "custom_vjp_call")  # primitives that only run a jaxpr
# Of a batch norm's parameters. JAX computes other constants, and compiles for each shape.
BY_NUMPY: Mapping[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "mul": np.multiply,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sub": np.subtract,
}


@dataclasses.dataclass(frozen=True)
class Output:
    """A result of the traced function, its axes in their own order."""

    node: Node
    shape: Shape
    dtype: np.dtype


def trace(function: Callable[..., Any], inputs: Mapping[str, jax.ShapeDtypeStruct]) -> list[Output]:
    """Trace a function with every convolution plain.

    Args:
        function: takes the inputs in this order; its result is a tensor or a tree of them.
        inputs: name -> shape and type.

    Returns:
        The leaves of its result.

    Raises:
        UserError: `onnx_operations` does not translate one of its operations.
    """

    def plain(*arguments: jax.Array) -> Any:
        with plain_convolutions():
            return function(*arguments)

    closed = jax.make_jaxpr(plain)(*inputs.values())
    arguments = [
        Value(Node("Input", (), {"name": name, "dtype": spec.dtype}), spec.shape, tuple(range(len(spec.shape))))
        for name, spec in inputs.items()
    ]
    results = _Walk().run(closed.jaxpr, closed.consts, arguments, "")
    return [_output(result, aval) for result, aval in zip(results, closed.out_avals, strict=True)]


def ordered(outputs: Iterable[Node]) -> list[Node]:
    """Return these nodes and all that they depend on, each after its inputs."""
    nodes: dict[Node, None] = {}
    for output in outputs:
        waiting = [output]
        while waiting:
            missing = [source for source in waiting[-1].inputs if source not in nodes]
            waiting.extend(reversed(missing))
            if not missing:
                nodes.setdefault(waiting.pop())
    return list(nodes)


def _output(result: Value | np.ndarray, aval: Any) -> Output:
    if not isinstance(result, Value):
        raise UserError("ONNX export: an output of the network is a constant, independent of the input")
    return Output(_reorder(result, tuple(range(len(result.shape)))).node, result.shape, np.dtype(aval.dtype))


def _reorder(value: Value, order: tuple[int, ...]) -> Value:
    if value.order == order:
        return value
    places = [value.order.index(axis) for axis in order]
    return Value(Node("Transpose", (value.node,), {"perm": places}), value.shape, order)


class _Walk:
    """Follows the inputs through a jaxpr and the jaxprs that it calls."""

    def __init__(self) -> None:
        self.transposed: dict[Node, Value] = {}  # inputs with channels first

    def run(
        self, jaxpr: core.Jaxpr, constants: Sequence[Any], arguments: Sequence[Value | np.ndarray], scope: str
    ) -> list[Value | np.ndarray]:
        """Return the jaxpr's results for these arguments; `scope` is the path of the equation that calls it."""
        known: dict[Any, Value | np.ndarray] = dict(zip(jaxpr.invars, arguments, strict=True))
        known.update(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))

        def read(variable: Any) -> Value | np.ndarray:
            return np.asarray(variable.val) if isinstance(variable, core.Literal) else known[variable]

        for equation in jaxpr.eqns:
            path = f"{scope}/{equation.source_info.name_stack}"
            try:
                results = self._apply(equation, [read(variable) for variable in equation.invars], path)
            except Unsupported as error:
                # Flax opens a scope for each module, and one with a dot in its name for each method.
                where = "/".join(part for part in path.split("/") if part and "." not in part) or "the top level"
                raise UserError(f"ONNX export cannot translate {equation.primitive.name} at {where}: {error}") from None
            known.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _apply(self, equation: Any, arguments: Sequence[Value | np.ndarray], path: str) -> Sequence[Value | np.ndarray]:
        """Return the equation's results for these arguments."""
        name, params, aval = equation.primitive.name, equation.params, equation.outvars[0].aval
        if name in CALLS:
            inner = params.get("jaxpr") or params["call_jaxpr"]
            return self.run(inner.jaxpr, inner.consts, arguments, path)
        if not any(isinstance(value, Value) for value in arguments):
            return _compute(equation, arguments)
        if name not in OPERATIONS:
            raise Unsupported("there is no rule for it")
        if aval.dtype != np.float32:
            raise Unsupported(f"only supported in float32, not {aval.dtype}")
        if name != "convert_element_type":  # this comes first, since TensorRT 10 can only cast a uint8 input
            arguments = [self._channels_first(value) for value in arguments]
        return [OPERATIONS[name](Step(arguments, params, tuple(aval.shape)))]

    def _channels_first(self, value: Value | np.ndarray) -> Value | np.ndarray:
        """Transpose an input that is an image, once; all other images have channels first already."""
        if not isinstance(value, Value) or value.node.op not in ("Input", "Cast") or value.order != NHWC:
            return value
        return self.transposed.setdefault(value.node, _reorder(value, NCHW))


def _compute(equation: Any, arguments: Sequence[Any]) -> Sequence[np.ndarray]:
    """Return the results of an equation that depends on no input."""
    name, primitive = equation.primitive.name, equation.primitive
    if any(not isinstance(axis, int) for variable in equation.outvars for axis in variable.aval.shape):
        raise Unsupported("not supported for a constant as long as the batch")
    if name in BY_NUMPY:
        return [BY_NUMPY[name](*arguments)]
    results = primitive.bind(*map(jnp.asarray, arguments), **equation.params)
    return [np.asarray(result) for result in (results if primitive.multiple_results else [results])]
