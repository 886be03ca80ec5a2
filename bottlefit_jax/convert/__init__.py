"""Foreign weights in and out, as tables of names."""

from bottlefit_jax.convert.torch_names import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
