"""Batch norms that were folded into the kernels before them, as in Keras' exported networks.

Such a norm only adds a bias and has no statistics. Evaluation needs no more. In training mode it would divide by the
deviation of the batch, which the kernel already contains, and the network would lose what it learned. So statistics
are measured on images first, and scale and bias are set so that the norm's output stays the same.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bottlefit_jax.models.layers import BatchNorm
from bottlefit_jax.models.network import Network

Variables = Mapping[str, Any]
Path = tuple[str, ...]
EPSILON = 1e-5
# variance + epsilon is 1 in float32, so that a folded norm multiplies by exactly 1
FOLDED_VARIANCE = np.float32(1) - np.float32(EPSILON)


def folded_norms(variables: Variables, parts: Collection[str]) -> list[Path]:
    """Return the paths of the norms in these parts that have no statistics of their own."""
    flat: Any = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    return [
        path[:-1]
        for path, value in flat.items()
        if path[0] in parts and path[-1] == "var"
        if np.all(np.asarray(value) == FOLDED_VARIANCE) and not np.any(np.asarray(flat[*path[:-1], "mean"]))
    ]


def with_measured_norms(
    network: Network, variables: Variables, batches: Iterable[tuple[Any, Any]], *, parts: Collection[str]
) -> dict[str, Any]:
    """Return the variables with statistics in their folded norms; in evaluation the network's output stays the same.

    Args:
        network: that the variables belong to.
        variables: its collections.
        batches: images `[B, h, w, 3]`, normalised, and mask `[B]`, False where an image only fills the batch.
        parts: whose norms are measured.
    """
    # A student's static range is measured after training, so there may be none yet.
    bottleneck = network.bottleneck and dataclasses.replace(network.bottleneck, bits=None)
    paths, module = folded_norms(variables, parts), network.clone(dtype=jnp.float32, bottleneck=bottleneck)
    moments = jax.jit(lambda given, images, mask: _moments(module, given, images, mask, paths))
    on_device = jax.device_put(variables)  # once, not for each batch
    count, means, squares = 0.0, dict.fromkeys(paths, 0.0), dict.fromkeys(paths, 0.0)
    for images, mask in batches:
        new = float(np.sum(np.asarray(mask)))
        for path, (mean, var) in jax.device_get(moments(on_device, images, mask)).items():
            gap = mean.astype(np.float64) - means[path]
            means[path] = means[path] + gap * (new / (count + new))
            squares[path] = squares[path] + var * new + gap**2 * (count * new / (count + new))
        count += new
    flat: Any = dict(traverse_util.flatten_dict(dict(variables)))
    for path in paths:
        var = np.asarray(squares[path] / count, np.float32)
        mean_out = np.asarray(means[path], np.float32)
        flat["batch_stats", *path, "mean"] = mean_out - np.asarray(flat["params", *path, "bias"])
        flat["batch_stats", *path, "var"] = var
        flat["params", *path, "scale"] = np.sqrt(var + np.float32(EPSILON))
        flat["params", *path, "bias"] = mean_out
    return traverse_util.unflatten_dict(flat)


def _moments(module: Network, variables: Variables, images: Any, mask: Any, paths: Collection[Path]) -> dict[Path, Any]:
    """Return mean and variance of each norm's output, which in a folded norm is its input plus the bias."""

    def is_norm(layer: nn.Module, method: str) -> bool:
        return isinstance(layer, BatchNorm) and method == "__call__"

    _, state = module.apply(variables, images, train=False, capture_intermediates=is_norm, mutable=["intermediates"])
    flat: Any = traverse_util.flatten_dict(dict(state)["intermediates"])
    weight = jnp.asarray(mask, jnp.float32)[:, None, None, None]
    moments = {}
    for path in paths:
        (out,) = flat[*path, "__call__"]
        total = weight.sum() * out.shape[1] * out.shape[2]
        mean = (out * weight).sum((0, 1, 2)) / total
        moments[path] = mean, (jnp.square(out - mean[None, None, None]) * weight).sum((0, 1, 2)) / total
    return moments
