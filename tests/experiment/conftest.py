"""Weights that the tests of this room begin from."""

import jax
import jax.numpy as jnp
import pytest

from bottlefit_jax import models
from bottlefit_jax.training.checkpoint import save_variables
from bottlefit_jax.training.network_meta import NetworkMeta
from bottlefit_jax.training.sharding import to_host


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of twelve classes, with names."""
    folder = tmp_path_factory.mktemp("weights") / "teacher"
    module = models.create("resnet18", num_classes=12, width=8)
    variables = jax.jit(module.init)(jax.random.key(0, impl="unsafe_rbg"), jnp.zeros((1, 32, 32, 3)))
    meta = NetworkMeta(
        name="resnet18",
        options={"width": 8},
        num_classes=12,
        bottleneck=None,
        labels=tuple((f"n{i:08}", f"thing {i}") for i in range(12)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    save_variables(folder, to_host(variables), meta)
    return folder
