"""Traces a model for a converter with one operator for each convolution.

`models.convolution.convolve` rewrites convolutions as sums of slices or matrix products, with a branch for each
platform, so that XLA's CPU backend has fast code for their gradients. A converter would keep all of that in the graph.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax

from bottlefit_jax.models.layers import Conv


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Turn every call of a `models.layers.Conv` into one `lax.conv_general_dilated`.

    Enter it inside the function that is traced. JAX caches traces, so a function that was traced before, outside of
    this context, would keep the rewritten convolutions.
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
