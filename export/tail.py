"""The tail of a student as a JAX function, as ONNX and as StableHLO."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx

from bottlefit_jax.codec.quantizer import Affine, dequantize
from bottlefit_jax.models.designs import Size
from bottlefit_jax.models.network import Network
from export.onnx_graph import to_onnx

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
    outputs: Sequence[str] = ("logits",),
) -> onnx.ModelProto:
    """Export a tail as ONNX, with the input `latent` and any batch size.

    Args:
        function: from `tail_function`.
        latent_shape: (h, w, c).
        latent_dtype: uint8; or float32 for TensorRT 8.2, which has no uint8.
        outputs: `logits` and, of a function with features, names of features.

    Raises:
        UserError: a layer needs an operator that TensorRT 8.2 or 10 does not parse.
    """

    def chosen(latent: jax.Array) -> list[jax.Array]:
        result = function(latent)
        logits, features = result if isinstance(result, tuple) else (result, {})
        named = {"logits": logits, **features}
        return [named[name] for name in outputs]

    latent = jax.ShapeDtypeStruct((1, *latent_shape), np.dtype(latent_dtype))
    return to_onnx(chosen, {"latent": latent}, outputs, name="tail", dynamic_batch=True)


def tail_stablehlo(function: Callable[[jax.Array], jax.Array], latent_shape: Sequence[int]) -> bytes:
    """Export a tail as StableHLO, with any batch size, for CPU and CUDA.

    `jax.export.deserialize(bytearray(blob)).call(latent)` runs it.

    Args:
        function: from `tail_function`.
        latent_shape: (h, w, c).
    """
    (batch,) = jax.export.symbolic_shape("batch")
    latent = jax.ShapeDtypeStruct((batch, *latent_shape), np.uint8)
    return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(latent).serialize())
