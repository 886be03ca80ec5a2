"""Whole students with random weights and batch statistics, and ONNX graphs in onnxruntime."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from flax import traverse_util

from bottlefit_jax import models
from export.tail import tail_function

SCALE, ZERO_POINT = 0.021, 137


def random_student(name, size, *, seed=0, channels=6, version=2, design="bottlefit", classes=10, **options):
    """A student and its variables; a third of the batch norms' scales are negative."""
    bottleneck = {"channels": channels, "version": version, "design": design}
    module = models.create(name, num_classes=classes, bottleneck=bottleneck, **options)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    abstract = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), images))
    rng = np.random.default_rng(seed)

    def draw(leaf, shape):
        if leaf.startswith("kernel"):
            return rng.normal(0, np.sqrt(1.5 / np.prod(shape[:-1])), shape)
        if leaf == "scale":
            return rng.uniform(0.5, 1.5, shape) * rng.choice([1, 1, -1], shape)
        return rng.uniform(0.5, 1.5, shape) if leaf == "var" else rng.normal(0, 0.3, shape)

    drawn = {path: draw(path[-1], leaf.shape).astype(np.float32) for path, leaf in abstract.items()}
    return module, traverse_util.unflatten_dict(drawn)


def random_tail(name, size, *, with_features=False, **options):
    """The tail of such a student as a function, and the shape of its latent."""
    module, variables = random_student(name, size, **options)
    function = tail_function(module, variables, SCALE, ZERO_POINT, (size, size), with_features=with_features)
    return function, (*module.latent_size((size, size)), module.bottleneck.channels)


def random_latents(batch, shape):
    return np.random.default_rng(batch).integers(0, 256, (batch, *shape), np.uint8)


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 2  # warnings and worse
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model, **inputs) -> dict[str, Any]:
    """The model's outputs by name."""
    names = [output.name for output in model.graph.output]
    return dict(zip(names, session_of(model).run(names, inputs), strict=True))


def operators(model):
    return [node.op_type for node in model.graph.node]


def shape_of(value):
    """Of an input or output: numbers, or the name of an axis of any length."""
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
