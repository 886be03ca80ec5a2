"""Exports the head of a student as ONNX, for a Jetson. `head` has the functions that become LiteRT files."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx

from bottlefit_jax.models.bottleneck import Size
from bottlefit_jax.models.network import Network
from bottlefit_jax.models.normalise import normalise
from export.onnx_graph import to_onnx


def head_onnx(
    module: Network,
    variables: Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: Size,
) -> onnx.ModelProto:
    """Export the head as ONNX, with the input `image` and the output `latent` before the quantiser.

    It takes one image, `[1, H, W, 3]` float32 with values 0 to 255, because TensorRT 8.2 has no uint8.

    Args:
        module: the student, in float32.
        variables: of the student.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.
        image_size: (H, W) in pixels.

    Raises:
        UserError: a layer needs an operator that TensorRT 8.2 or 10 does not parse.
    """

    def head(image: jax.Array) -> Any:
        return module.apply(variables, normalise(image, mean, std), method="encode")

    image = jax.ShapeDtypeStruct((1, *image_size, 3), np.float32)
    return to_onnx(head, {"image": image}, ["latent"], name="head", dynamic_batch=False)
