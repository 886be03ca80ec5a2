"""Foreign weights in and out, as tables of names. `python -m bottlefit_jax.convert --help` is the command."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.convert.keras_names import from_keras
    from bottlefit_jax.convert.torch_names import from_torch, to_torch

__all__ = ["from_keras", "from_torch", "to_torch"]

__getattr__ = exports(__name__, {"keras_names": ("from_keras",), "torch_names": ("from_torch", "to_torch")})
