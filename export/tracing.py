"""Tracing a model for a converter: every convolution is one operator.

`models.layers.convolve` words convolutions so that XLA's CPU backend has fast code for their gradients: sums of slices,
matrix products, one branch for each platform. A converter would carry that wording into the exported graph.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax

from bottlefit_jax.models.layers import Conv


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Within it, every `models.layers.Conv` that is called is one `lax.conv_general_dilated`.

    It must be entered inside the function that is traced: JAX keeps what it traced of a function, so one that was
    traced outside of it before keeps the other wording.
    """
    with nn.intercept_methods(_one_operator):
        yield


def _one_operator(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
    conv = context.module
    if not isinstance(conv, Conv) or context.method_name != "__call__" or conv.is_initializing():
        return call(*args, **kwargs)
    kernel = conv.get_variable("params", "kernel")
    pads = conv.padding if isinstance(conv.padding, str) else [(p, p) for p in conv.padding]
    return jax.lax.conv_general_dilated(
        args[0].astype(conv.dtype), kernel.astype(conv.dtype), (conv.stride, conv.stride), pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=conv.groups)  # fmt: skip
