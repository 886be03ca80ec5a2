"""The image that a runtime is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from bottlefit_jax.errors import UserError


def check_pixels(image: np.ndarray, shape: tuple[int, ...], dtype: Any = np.uint8) -> None:
    """Check an image before a model runs on it.

    Args:
        image: as it was given.
        shape: that the model takes.
        dtype: likewise.

    Raises:
        UserError: the image has another shape or type.
    """
    if image.shape != shape or image.dtype != dtype:
        raise UserError(
            f"the image is {image.dtype} {tuple(image.shape)}; this model takes {np.dtype(dtype)} {tuple(shape)}"
        )
