"""Folds operators of a graph: affine maps into the weights before them, padding into the windows after it.

Numbers stay in float64 until the graph is written, so folding costs no accuracy.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from export.onnx_operations import Node
from export.onnx_trace import ordered

# The shape in which a vector, one number for each output channel, broadcasts against the weights of an operator.
CHANNELS_OUT = {"Conv": (-1, 1, 1, 1), "ConvTranspose": (1, -1, 1, 1), "Gemm": (1, -1)}


def fold(outputs: Sequence[Node]) -> list[Node]:
    """Return the nodes that replace these outputs. A node that several nodes or an output use stays as it is."""
    nodes = ordered(outputs)
    uses = collections.Counter([*outputs, *(source for node in nodes for source in node.inputs)])
    replaced: dict[Node, Node] = {}
    new_uses: collections.Counter[Node] = collections.Counter()
    for node in nodes:
        new = dataclasses.replace(node, inputs=tuple(replaced[source] for source in node.inputs))
        while len(new.inputs) == 1 and new_uses[new.inputs[0]] == 1 and (folded := _join(new, new.inputs[0])):
            new = folded
        if _is_identity(new):
            new_uses[new.inputs[0]] -= 1
            new = new.inputs[0]
        replaced[node] = new
        new_uses[new] += uses[node]
    return [replaced[output] for output in outputs]


def _join(node: Node, source: Node) -> Node | None:
    """Return one node for the two, if a rule gives one."""
    return next((joined for rule in RULES if (joined := rule(node, source))), None)


def _is_identity(node: Node) -> bool:
    """Whether the node is an affine map that equals the identity in float32."""
    if node.op != "Affine":
        return False
    factor, shift = node.weights
    return np.allclose(factor, 1, rtol=1e-7, atol=0) and not np.any(shift)


def _affine_of_affine(node: Node, source: Node) -> Node | None:
    if (node.op, source.op) != ("Affine", "Affine"):
        return None
    (factor, shift), (first_factor, first_shift) = node.weights, source.weights
    return dataclasses.replace(source, weights=(factor * first_factor, factor * first_shift + shift))


def _affine_of_weights(node: Node, source: Node) -> Node | None:
    if node.op != "Affine" or source.op not in CHANNELS_OUT:
        return None
    (factor, shift), (weights, bias) = node.weights, source.weights
    weights = weights * factor.reshape(CHANNELS_OUT[source.op])
    return dataclasses.replace(source, weights=(weights, bias * factor + shift))


def _smallest_of_relu(node: Node, source: Node) -> Node | None:
    if (node.op, source.op) != ("Clip", "Relu") or "min" in node.attributes:
        return None
    return dataclasses.replace(node, inputs=source.inputs, attributes={"min": 0.0, **node.attributes})


def _window_of_pad(node: Node, source: Node) -> Node | None:
    """Move padding into a window. A max-pool does not pad with zeros, which is the same after a ReLU."""
    if node.op not in ("Conv", "MaxPool", "AveragePool") or source.op != "Pad":
        return None
    if node.op == "MaxPool" and not _never_negative(source.inputs[0]):
        return None
    pads = [
        (outer[0] + inner[0], outer[1] + inner[1])
        for outer, inner in zip(source.attributes["pads"], node.attributes["pads"], strict=True)
    ]
    return dataclasses.replace(node, inputs=source.inputs, attributes={**node.attributes, "pads": pads})


def _never_negative(node: Node) -> bool:
    return node.op == "Relu" or (node.op == "Clip" and node.attributes.get("min", -1) >= 0)


RULES: tuple[Callable[[Node, Node], Node | None], ...] = (
    _affine_of_affine,
    _affine_of_weights,
    _smallest_of_relu,
    _window_of_pad,
)
