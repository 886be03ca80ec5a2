"""What a step of stage 1 costs, and the rate of a large matrix product to hold it against.

**Counted** are multiply-adds of convolutions and matrix products alone (`bottlefit_jax.evaluation.cost.macs`), two
operations each. A step makes the teacher's forward pass up to the last matched feature, the student's, and the
student's backward pass: for encoder and decoder twice their forward pass (gradients of inputs and of weights), for the
frozen tail once (of inputs alone). For ResNet-50 and
ResNet-152 at 224 px that is within 0.5 % of what the jaxpr of loss and gradient multiplies.

**The peak** is no datasheet's but what one product of two square matrices of random numbers (zeros run faster) reaches
through JAX in the same run, in the type of the step. On a GPU float32 products run as TF32 there, as the step's
convolutions do.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.evaluation.cost import macs
from bottlefit_jax.models.network import Network

SIDE, PRODUCTS = 8192, 50  # of the matrices; in a round: some 70 ms on an H200
SIDE_ON_CPU, PRODUCTS_ON_CPU = 1024, 2


def stage1_flops(
    teacher: Network, student: Network, teacher_variables: Any, variables: Any, image_size: int
) -> dict[str, int]:
    """Return the operations of one step for one image.

    Args:
        teacher: the network whose features are matched.
        student: the network that is trained.
        teacher_variables: of the teacher, arrays or shapes.
        variables: of the student, arrays or shapes.
        image_size: side of the square images, pixels.

    Returns:
        {"teacher", "student", "backward", "step"}; the last is the sum of the others.
    """
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    names = student.matched
    of_teacher = macs(_features(teacher, names), _shapes(teacher_variables), image)
    of_student = macs(_features(student, names), _shapes(variables), image)
    halves = macs(_features(student, ("decoded",)), _shapes(variables), image)
    backward = 2 * halves + (of_student - halves)
    counted = {"teacher": 2 * of_teacher, "student": 2 * of_student, "backward": 2 * backward}
    return counted | {"step": sum(counted.values())}


def share_of_peak(images_per_second: float, flops_per_image: float, peak: float) -> float:
    """Return the share of the matrix product's rate (`peak`, operations a second) that a step reaches."""
    return images_per_second * flops_per_image / peak


class MatrixProduct:
    """A product [n, n] · [n, n] on the first device, to be called, and waited for."""

    def __init__(self, dtype: str):
        """Make the matrices and compile."""
        device = jax.devices()[0]
        small = device.platform == "cpu"
        self.n, self.count = (SIDE_ON_CPU, PRODUCTS_ON_CPU) if small else (SIDE, PRODUCTS)
        keys = jax.random.split(jax.random.key(0))
        make = jax.jit(lambda key: jax.random.normal(key, (self.n, self.n), jnp.dtype(dtype)))
        self._pair = [jax.device_put(make(key), device) for key in keys]
        self._dot = jax.jit(jnp.dot)
        self._last = self._dot(*self._pair)

    @property
    def flops(self) -> int:
        """Operations of one product."""
        return 2 * self.n**3

    def run(self) -> None:
        """Give one product to the device."""
        self._last = self._dot(*self._pair)

    def wait(self) -> None:
        """Until the device is at rest."""
        jax.block_until_ready(self._last)


def _features(module: Network, names: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    """`f(variables, image) -> these features`."""

    def run(variables: Any, image: Any) -> list[Any]:
        features = module.apply(variables, image)[1]
        return [features[name] for name in names]

    return run


def _shapes(variables: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
