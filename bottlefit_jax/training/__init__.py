"""Stages of training, the loop that runs them, and what it is built on: losses, optimisers, sharding, checkpoints."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.training.checkpoint import StageCheckpoints, load_meta, load_variables, save_variables
    from bottlefit_jax.training.loop import Plan, Result, Stopped, StopRequest, StopSignal, run_stage
    from bottlefit_jax.training.losses import LOSSES, Loss
    from bottlefit_jax.training.optimizer import create_optimizer, create_schedule
    from bottlefit_jax.training.progress import RunLog
    from bottlefit_jax.training.sharding import create_mesh, put_batch, put_replicated, to_host
    from bottlefit_jax.training.stages import STAGES, Role, Stage, StageSettings, create_stage
    from bottlefit_jax.training.step import TrainState, create_train_step, initial_state

__all__ = [
    "LOSSES",
    "STAGES",
    "Loss",
    "Plan",
    "Result",
    "Role",
    "RunLog",
    "Stage",
    "StageCheckpoints",
    "StageSettings",
    "StopRequest",
    "StopSignal",
    "Stopped",
    "TrainState",
    "create_mesh",
    "create_optimizer",
    "create_schedule",
    "create_stage",
    "create_train_step",
    "initial_state",
    "load_meta",
    "load_variables",
    "put_batch",
    "put_replicated",
    "run_stage",
    "save_variables",
    "to_host",
]

__getattr__ = exports(
    __name__,
    {
        "checkpoint": ("StageCheckpoints", "load_meta", "load_variables", "save_variables"),
        "loop": ("Plan", "Result", "StopRequest", "StopSignal", "Stopped", "run_stage"),
        "losses": ("LOSSES", "Loss"),
        "optimizer": ("create_optimizer", "create_schedule"),
        "progress": ("RunLog",),
        "sharding": ("create_mesh", "put_batch", "put_replicated", "to_host"),
        "stages": ("STAGES", "Role", "Stage", "StageSettings", "create_stage"),
        "step": ("TrainState", "create_train_step", "initial_state"),
    },
)
