"""The cost of parts of a network: multiply-adds, counted in a jaxpr, and parameters. Nothing is computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from bottlefit_jax.errors import UserError


def macs(fn: Callable, *abstract_args) -> int:
    """Count the multiply-adds of convolutions and matrix products in one call.

    The conventions are the usual ones of papers and tools: padding is counted like the image; additions, normalisations
    and activations are not counted; a transposed convolution costs (input positions) × kernel, as the zeros between its
    inputs are never multiplied. Operations that the result does not depend on are not counted, so
    `lambda v, x: model.apply(v, x)[1]["latent"]` costs no more than the encoder. Of the branches of a `cond` the most
    expensive one counts.

    Args:
        fn: a traceable function.
        *abstract_args: arrays, or `jax.ShapeDtypeStruct`s (and trees of them); batch size 1 for a cost per image.

    Raises:
        UserError: a `while_loop` that multiplies, as the number of its iterations is unknown.
    """
    return _jaxpr_macs(jax.make_jaxpr(fn)(*abstract_args).jaxpr)


def count_params(tree) -> int:
    """Count the numbers in a tree of arrays or `jax.ShapeDtypeStruct`s (pass `variables["params"]`)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def device_cost(student: Any, variables: Any, image_size: int) -> dict[str, int]:
    """Count the parameters and multiply-adds of all parts on the device: {"params", "macs"}.

    Args:
        student: a `models.Network` with a bottleneck.
        variables: of the student, arrays or shapes.
        image_size: side of the square images, pixels.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    run = functools.partial(student.apply, method="device_outputs")
    params = {part: tree for part, tree in variables["params"].items() if part in student.device_parts}
    return {"params": count_params(params), "macs": macs(run, shapes, image)}


def _jaxpr_macs(jaxpr: Any) -> int:
    """Add up the equations of a jaxpr that its results depend on, from the last to the first."""
    total = 0
    needed = {var for var in jaxpr.outvars if not _is_literal(var)}
    for eqn in reversed(jaxpr.eqns):
        if needed.isdisjoint(eqn.outvars):
            continue
        needed.update(var for var in eqn.invars if not _is_literal(var))
        total += _eqn_macs(eqn)
    return total


def _is_literal(var: Any) -> bool:
    return hasattr(var, "val")


def _eqn_macs(eqn: Any) -> int:
    """Count one equation, and whatever functions it calls."""
    match eqn.primitive.name:
        case "conv_general_dilated":
            return _conv_macs(eqn)
        case "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            lhs = eqn.invars[0].aval.shape
            return math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[axis] for axis in contracted)
        case "cond":
            return max(_jaxpr_macs(branch) for branch in _called(eqn))
        case "scan":
            return eqn.params["length"] * sum(_jaxpr_macs(body) for body in _called(eqn))
        case "while":
            if sum(_jaxpr_macs(body) for body in _called(eqn)):
                raise UserError("the function multiplies inside a while_loop, which runs an unknown number of times")
            return 0
        case _:
            return sum(_jaxpr_macs(called) for called in _called(eqn))


def _conv_macs(eqn: Any) -> int:
    """Count a convolution: every kernel tap for each output, or along a transposed axis for each input."""
    lhs, rhs, out = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    lhs_spec, rhs_spec, out_spec = eqn.params["dimension_numbers"]
    total = out[out_spec[0]] * out[out_spec[1]] * rhs[rhs_spec[1]]  # batch, output features, input features per group
    axes = zip(lhs_spec[2:], rhs_spec[2:], out_spec[2:], eqn.params["lhs_dilation"], strict=True)
    for lhs_axis, rhs_axis, out_axis, dilation in axes:
        total *= rhs[rhs_axis] * (lhs[lhs_axis] if dilation > 1 else out[out_axis])
    return total


def _called(eqn: Any) -> Iterator[Any]:
    """Yield every jaxpr among an equation's parameters: jit, custom derivatives, remat, loops and branches."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns") and hasattr(inner, "outvars"):
                yield inner
