"""Foreign weights in and out, as tables of names. `python -m bottlefit_jax.convert --help` is the command."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bottlefit_jax.convert.keras_names import from_keras
    from bottlefit_jax.convert.torch_names import from_torch, to_torch

__all__ = ["from_keras", "from_torch", "to_torch"]


def __getattr__(name: str) -> Any:
    """The functions, when they are asked for: they need JAX, which takes seconds; the command checks much before."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bottlefit_jax.convert import keras_names, torch_names

    return getattr(keras_names if name == "from_keras" else torch_names, name)
