import jax.numpy as jnp
import pytest

from export import litert
from tests.serve import example

SIZE = 32


@pytest.fixture(scope="module")
def models():
    """Head and whole network as LiteRT files."""
    shape, (height, width, channels) = (1, SIZE, SIZE, 3), example.SHAPE
    return {
        "head.tflite": litert.to_tflite(lambda x: x[:, :height, :width, :channels].astype(jnp.float32) / 64, shape),
        "local.tflite": litert.to_tflite(
            lambda x: x.astype(jnp.float32).mean((1, 2, 3))[:, None] * jnp.ones((1, 4)), shape
        ),
    }
