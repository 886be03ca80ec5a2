"""Adds what another program's server must answer to a tail's outputs: probabilities, and the ids of head and tail."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.protocol.names import ID_DIGITS, IDENTITY, OUTPUT, PROBABILITIES


def identity_of(manifest: Manifest) -> np.ndarray:
    """Return the first ID_DIGITS digits of the head's id, then those of the tail's, as [32] uint8."""
    digits = manifest.head.id[:ID_DIGITS] + manifest.tail.id[:ID_DIGITS]
    return np.frombuffer(bytes.fromhex(digits), np.uint8)


def with_identity(tail: bytes, manifest: Manifest) -> onnx.ModelProto:
    """Add the output IDENTITY to a tail: uint8 [batch, 32], `identity_of` once for each latent of the batch.

    A tail that has no output PROBABILITIES, as an older bundle's, gets it as well.

    Args:
        tail: an ONNX model of opset 13 or newer; the nodes that compute the logits stay as they are.
        manifest: has the ids.
    """
    model = onnx.load_from_string(tail)
    graph = model.graph
    if PROBABILITIES not in [output.name for output in graph.output]:
        _add_probabilities(graph)
    latent, batch = graph.input[0].name, graph.input[0].type.tensor_type.shape.dim[0].dim_param
    row = identity_of(manifest)[None]
    constants = {"row": row, "first": np.array([0]), "second": np.array([1]), "length": np.array([row.size])}
    graph.initializer.extend(numpy_helper.from_array(value, f"{IDENTITY}_{name}") for name, value in constants.items())
    step = {name: f"{IDENTITY}_{name}" for name in ("shape", "batch", "target")}
    graph.node.extend(
        [
            helper.make_node("Shape", [latent], [step["shape"]]),
            helper.make_node("Slice", [step["shape"], f"{IDENTITY}_first", f"{IDENTITY}_second"], [step["batch"]]),
            helper.make_node("Concat", [step["batch"], f"{IDENTITY}_length"], [step["target"]], axis=0),
            helper.make_node("Expand", [f"{IDENTITY}_row", step["target"]], [IDENTITY]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(IDENTITY, TensorProto.UINT8, [batch, row.size]))
    onnx.checker.check_model(model)
    return model


def _add_probabilities(graph: onnx.GraphProto) -> None:
    """Add the output PROBABILITIES, the softmax of OUTPUT."""
    logits = next(output for output in graph.output if output.name == OUTPUT)
    graph.node.append(helper.make_node("Softmax", [OUTPUT], [PROBABILITIES], axis=-1))
    probabilities = graph.output.add()
    probabilities.CopyFrom(logits)
    probabilities.name = PROBABILITIES
