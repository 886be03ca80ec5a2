import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from export.tracing import plain_convolutions
from tests.models.conftest import draw_variables  # noqa: F401  a fixture


@pytest.mark.parametrize(("name", "options"), [("resnet18", {"width": 8}), ("mobilenet_v2", {})])
def test_every_convolution_is_one_operator_with_the_same_numbers(name, options, draw_variables):  # noqa: F811
    module = models.create(name, num_classes=10, bottleneck={"channels": 6, "bits": None}, **options)
    image = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    variables = draw_variables(module, 32)

    def plain(image):
        with plain_convolutions():
            return module.apply(variables, image)[0]

    traced = str(jax.make_jaxpr(plain)(image))
    assert "concatenate" not in traced
    assert "platform_index" not in traced
    kernels = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4]
    transposed = jax.tree_util.tree_leaves_with_path(variables["params"])
    transposed = [path for path, _ in transposed if path[-1].key == "kernel_transposed"]
    assert traced.count("= conv_general_dilated[") == len(kernels) - len(transposed)
    want = np.asarray(jax.jit(module.apply)(variables, image)[0])
    assert np.abs(np.asarray(jax.jit(plain)(image)) - want).max() <= 1e-5 * np.abs(want).max()


def test_outside_of_the_context_convolutions_are_rewritten(draw_variables):  # noqa: F811
    module = models.create("resnet18", num_classes=10, width=8, bottleneck={"channels": 2, "bits": None})
    image = jnp.zeros((1, 32, 32, 3))
    with plain_convolutions():
        variables = draw_variables(module, 32)
    assert "concatenate" in str(jax.make_jaxpr(module.apply)(variables, image))
