"""The comparison: what BottleFit saves against what else a user could do."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.compare.items import Options
    from bottlefit_jax.compare.methods import METHODS, Method
    from bottlefit_jax.compare.run import run_comparison

__all__ = ["METHODS", "Method", "Options", "run_comparison"]

__getattr__ = exports(
    __name__,
    {"items": ("Options",), "methods": ("METHODS", "Method"), "run": ("run_comparison",)},
)
