"""One run: its inputs, the order of its stages, its results."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.experiment.inputs import Networks, create_networks, create_stages, stage_settings
    from bottlefit_jax.experiment.run import run_experiment

__all__ = [
    "Networks",
    "create_networks",
    "create_stages",
    "run_experiment",
    "stage_settings",
]

__getattr__ = exports(
    __name__,
    {
        "inputs": ("Networks", "create_networks", "create_stages", "stage_settings"),
        "run": ("run_experiment",),
    },
)
