"""Inception v3 as torchvision builds it (`torchvision/models/inception.py`); batch norms have epsilon 1e-3.

A mixed block is a table: each branch is a row of convolutions `(name, channels, kernel, stride, padding)`, and the
branches' outputs are concatenated. `POOL` in a row is an average-pool 3×3 with stride 1, `SHRINK` a max-pool 3×3 with
stride 2, and a tuple of two rows is a fork.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.errors import UserError
from bottlefit_jax.models.backbone import Part, Spec
from bottlefit_jax.models.layers import ConvNorm, Linear, Style, average_pool, global_average

POOL, SHRINK = "pool", "shrink"
ROW, COLUMN = (1, 7), (7, 1)
INIT = nn.initializers.normal(0.1)


def _shrink(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2))


def _to_minus_one_one(images: jax.Array) -> jax.Array:
    """Convert from ImageNet's mean and deviation to those of 0.5, which the original weights were trained with."""
    scale = jnp.array([0.229, 0.224, 0.225], images.dtype) / 0.5
    shift = (jnp.array([0.485, 0.456, 0.406], images.dtype) - 0.5) / 0.5
    return images * jnp.expand_dims(scale, (0, 1, 2)) + jnp.expand_dims(shift, (0, 1, 2))


class Mixed(nn.Module):
    """One mixed block: `[B, h, w, c] -> [B, h', w', sum of the branches' channels]`."""

    style: Style
    branches: tuple

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the branches."""
        return jnp.concatenate([self._row(x, row, train) for row in self.branches], axis=-1)

    def _row(self, x: jax.Array, row: tuple, train: bool) -> jax.Array:
        for step in row:
            if step == POOL:
                x = average_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 1))
            elif step == SHRINK:
                x = _shrink(x)
            elif isinstance(step[0], tuple):
                x = jnp.concatenate([self._row(x, (fork,), train) for fork in step], axis=-1)
            else:
                name, channels, kernel, stride, padding = step
                x = _basic(self.style, channels, kernel, stride, padding, name=name)(x, train)
        return x


class Auxiliary(nn.Module):
    """The auxiliary classifier, used in training only: `[B, 17, 17, 768] -> [B, classes]`."""

    style: Style
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the classifier."""
        if train and min(x.shape[1:3]) < 17:
            raise UserError(
                f"the auxiliary classifier has an input of {x.shape[1]} × {x.shape[2]}, less than 17 × 17: "
                "train inception_v3 on images from 299 × 299 up, or create it with aux_logits=False"
            )
        x = average_pool(x, (5, 5), (3, 3))
        x = _basic(self.style, 128, name="conv0")(x, train)
        x = global_average(_basic(self.style, 768, 5, name="conv1")(x, train))
        return Linear(self.classes, self.style.dtype, nn.initializers.normal(0.001), name="fc")(x)


def _basic(style: Style, channels: int, kernel: Any = 1, stride: int = 1, padding: Any = 0, **name: Any) -> ConvNorm:
    return ConvNorm(style, channels, kernel, stride, padding, activation=nn.relu, names=("conv", "bn"), **name)


def _a(pool: int) -> tuple:
    return (
        (("branch1x1", 64, 1, 1, 0),),
        (("branch5x5_1", 48, 1, 1, 0), ("branch5x5_2", 64, 5, 1, 2)),
        (("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 1, 1)),
        (POOL, ("branch_pool", pool, 1, 1, 0)),
    )


def _c(n: int) -> tuple:
    along, down = (0, 3), (3, 0)
    return (
        (("branch1x1", 192, 1, 1, 0),),
        (("branch7x7_1", n, 1, 1, 0), ("branch7x7_2", n, ROW, 1, along), ("branch7x7_3", 192, COLUMN, 1, down)),
        (
            ("branch7x7dbl_1", n, 1, 1, 0),
            ("branch7x7dbl_2", n, COLUMN, 1, down),
            ("branch7x7dbl_3", n, ROW, 1, along),
            ("branch7x7dbl_4", n, COLUMN, 1, down),
            ("branch7x7dbl_5", 192, ROW, 1, along),
        ),
        (POOL, ("branch_pool", 192, 1, 1, 0)),
    )


def _fork(name: str) -> tuple:
    return ((f"{name}a", 384, (1, 3), 1, (0, 1)), (f"{name}b", 384, (3, 1), 1, (1, 0)))


_B = (
    (("branch3x3", 384, 3, 2, 0),),
    (("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 2, 0)),
    (SHRINK,),
)
_D = (
    (("branch3x3_1", 192, 1, 1, 0), ("branch3x3_2", 320, 3, 2, 0)),
    (
        ("branch7x7x3_1", 192, 1, 1, 0),
        ("branch7x7x3_2", 192, ROW, 1, (0, 3)),
        ("branch7x7x3_3", 192, COLUMN, 1, (3, 0)),
        ("branch7x7x3_4", 192, 3, 2, 0),
    ),
    (SHRINK,),
)
_E = (
    (("branch1x1", 320, 1, 1, 0),),
    (("branch3x3_1", 384, 1, 1, 0), _fork("branch3x3_2")),
    (("branch3x3dbl_1", 448, 1, 1, 0), ("branch3x3dbl_2", 384, 3, 1, 1), _fork("branch3x3dbl_3")),
    (POOL, ("branch_pool", 192, 1, 1, 0)),
)
# name, channels that come out, branches, window
_MIXED = (
    ("Mixed_5b", 256, _a(32), (1, 1, 0)),
    ("Mixed_5c", 288, _a(64), (1, 1, 0)),
    ("Mixed_5d", 288, _a(64), (1, 1, 0)),
    ("Mixed_6a", 768, _B, (3, 2, 0)),
    ("Mixed_6b", 768, _c(128), (1, 1, 0)),
    ("Mixed_6c", 768, _c(160), (1, 1, 0)),
    ("Mixed_6d", 768, _c(160), (1, 1, 0)),
    ("Mixed_6e", 768, _c(192), (1, 1, 0)),
    ("Mixed_7a", 1280, _D, (3, 2, 0)),
    ("Mixed_7b", 2048, _E, (1, 1, 0)),
    ("Mixed_7c", 2048, _E, (1, 1, 0)),
)


class Dropout(nn.Module):
    """Set half of the values to 0 in training, drawn from the rng `dropout`."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the dropout."""
        return nn.Dropout(0.5, deterministic=not train)(x)


def inception_parts(num_classes: int, dtype: Any, *, aux_logits: bool, transform_input: bool) -> tuple[Part, ...]:
    """Return the parts of Inception v3.

    Args:
        num_classes: outputs of the classifier.
        dtype: the type that it computes in.
        aux_logits: with the auxiliary classifier.
        transform_input: convert the images from ImageNet's normalisation to -1..1.
    """
    style = Style(dtype, INIT, eps=1e-3)

    def conv(name: str, channels: int, kernel: int, stride: int = 1, padding: int = 0, function: Any = None) -> Part:
        make = functools.partial(_basic, style, channels, kernel, stride, padding)
        return Part(name, make, function, channels, (kernel, stride, padding))

    mixed = [Part(n, functools.partial(Mixed, style, rows), channels=c, window=w) for n, c, rows, w in _MIXED]
    parts = (
        conv("Conv2d_1a_3x3", 32, 3, 2, function=_to_minus_one_one if transform_input else None),
        conv("Conv2d_2a_3x3", 32, 3),
        conv("Conv2d_2b_3x3", 64, 3, padding=1),
        Part("maxpool1", function=_shrink, channels=64, window=(3, 2, 0)),
        conv("Conv2d_3b_1x1", 80, 1),
        conv("Conv2d_4a_3x3", 192, 3),
        Part("maxpool2", function=_shrink, channels=192, window=(3, 2, 0)),
        *mixed,
        Part("avgpool", function=global_average),
        Part("dropout", Dropout),
        Part("fc", functools.partial(Linear, num_classes, dtype, INIT)),
    )
    auxiliary = Part("AuxLogits", functools.partial(Auxiliary, style, num_classes), side="Mixed_6e")
    return (*parts, auxiliary) if aux_logits else parts


SPECS = (
    Spec(
        name="inception_v3",
        parts=inception_parts,
        family="inception",
        cut="Mixed_5d",
        matched=("Mixed_5d", "Mixed_6e", "Mixed_7c"),
        options={"aux_logits": (True, (False, True)), "transform_input": (False, (False, True))},
        image_size=299,
    ),
)
