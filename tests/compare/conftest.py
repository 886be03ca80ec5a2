"""A comparison's common ground on the digits, with a small teacher that was never trained."""

import jax
import jax.numpy as jnp
import pytest

from bottlefit_jax import models
from bottlefit_jax.compare.setting import open_setting
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import checkpoint
from bottlefit_jax.training.network_meta import NetworkMeta
from tests.models.conftest import draw_variables  # noqa: F401  a fixture of these tests too

SIZE = 40  # large enough for every design


@pytest.fixture(scope="session")
def setting(tmp_path_factory):
    """The digits at 40 px, a ResNet-18 of width 8, 6 channels."""
    folder = tmp_path_factory.mktemp("compare") / "teacher"
    teacher = models.create("resnet18", num_classes=10, width=8)
    key = jax.random.key(3, impl="unsafe_rbg")  # compiles in a third of the time
    variables = jax.device_get(jax.jit(teacher.init)(key, jnp.zeros((1, SIZE, SIZE, 3))))
    meta = NetworkMeta(
        name="resnet18",
        options={"width": 8},
        num_classes=10,
        bottleneck=None,
        labels=tuple((str(digit),) for digit in range(10)),
        image_size=SIZE,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    checkpoint.save_variables(folder, variables, meta)
    config = base_config()
    config.dataset.update(name="digits", image_size=SIZE, workers=0)
    config.teacher.update(name="resnet18", weights=str(folder))
    config.student.bottleneck.channels = 6
    config.lock()
    return open_setting(config, folder.parent, stop=None)
