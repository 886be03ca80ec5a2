import numpy as np
import pytest

from bottlefit_jax.bundle import read_bundle
from tests.bundle import example

SHAPE, CLASSES = (5, 6, 3), 4


def latents(batch=1, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (batch, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="session")
def rates():
    """Of the bundle: "lossless" and "coarse"."""
    return example.rates(SHAPE)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """Of a bundle with latents of SHAPE and CLASSES classes."""
    return read_bundle(example.write(tmp_path_factory.mktemp("bundle") / "a")).manifest
