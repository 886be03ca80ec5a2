"""The tail of a student as a JAX function, as ONNX and as StableHLO."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper

from bottlefit_jax.codec.quantizer import Affine, dequantize
from bottlefit_jax.models.designs import Size
from bottlefit_jax.models.network import Network
from export.onnx_graph import BATCH, to_onnx
from export.tensorrt_operators import check_operators

LOGITS, PROBABILITIES = "logits", "probabilities"  # outputs of tail.onnx
PLATFORMS = ("cpu", "cuda")  # of the StableHLO


def tail_function(
    module: Network,
    variables: Mapping[str, Any],
    scale: float,
    zero_point: int,
    image_size: Size,
    *,
    with_features: bool = False,
) -> Callable[[jax.Array], Any]:
    """Make the function that a server applies to latents.

    Args:
        module: the student, in float32.
        variables: of the student; they become constants of the function.
        scale: of the quantiser that made the latents.
        zero_point: of the quantiser that made the latents.
        image_size: (h, w) of the images, in pixels.
        with_features: return (logits, features), as the network does, to find the layer at which an export diverges.
            The features have no `latent`. They are in the network's order until `jax.jit` sorts them.

    Returns:
        `[B, h, w, c]` uint8, or the same integers in float32 -> `[B, classes]` float32.
    """
    affine = Affine(np.float32(scale), np.int32(zero_point), np.float32(0))

    def tail(latent: jax.Array) -> Any:
        received = dequantize(latent, affine, xp=jnp)
        logits, features = module.apply(variables, received, method="decode", image_size=image_size)
        return (logits, {key: value for key, value in features.items() if key != "latent"}) if with_features else logits

    return tail


def tail_onnx(
    function: Callable[[jax.Array], Any],
    latent_shape: Sequence[int],
    *,
    latent_dtype: str = "uint8",
    outputs: Sequence[str] = (LOGITS, PROBABILITIES),
) -> onnx.ModelProto:
    """Export a tail as ONNX, with the input `latent` and any batch size.

    Args:
        function: from `tail_function`.
        latent_shape: (h, w, c).
        latent_dtype: uint8; or float32 for TensorRT 8.2, which has no uint8.
        outputs: `logits`; `probabilities`, which are their softmax; of a function with features, names of features.

    Raises:
        UserError: a layer needs an operator that TensorRT 8.2 or 10 does not parse.
    """
    traced = [name for name in outputs if name != PROBABILITIES]

    def chosen(latent: jax.Array) -> list[jax.Array]:
        result = function(latent)
        logits, features = result if isinstance(result, tuple) else (result, {})
        named = {LOGITS: logits, **features}
        return [named[name] for name in traced]

    latent = jax.ShapeDtypeStruct((1, *latent_shape), np.dtype(latent_dtype))
    model = to_onnx(chosen, {"latent": latent}, traced, name="tail", dynamic_batch=True)
    return _with_probabilities(model) if PROBABILITIES in outputs else model


def tail_stablehlo(function: Callable[[jax.Array], jax.Array], latent_shape: Sequence[int]) -> bytes:
    """Export a tail as StableHLO, with any batch size, for CPU and CUDA. It gives the logits alone.

    `jax.export.deserialize(bytearray(blob)).call(latent)` runs it.

    Args:
        function: from `tail_function`.
        latent_shape: (h, w, c).
    """
    (batch,) = jax.export.symbolic_shape("batch")
    latent = jax.ShapeDtypeStruct((batch, *latent_shape), np.uint8)
    with _no_source_paths():
        return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(latent).serialize())


def _with_probabilities(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add the softmax of the logits as an output. Triton's classification gives the values of one output."""
    logits = next(output for output in model.graph.output if output.name == LOGITS)
    classes = logits.type.tensor_type.shape.dim[1].dim_value
    model.graph.node.append(helper.make_node("Softmax", [LOGITS], [PROBABILITIES], name=PROBABILITIES, axis=1))
    model.graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [BATCH, classes]))
    check_operators(model)
    onnx.checker.check_model(model, full_check=True)
    return model


@contextlib.contextmanager
def _no_source_paths() -> Iterator[None]:
    """Keep the paths of Python files out of what JAX lowers: they are those of this machine."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
