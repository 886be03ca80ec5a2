"""One optimiser step, compiled: normalise, apply, minimise, update what the stage trains and nothing else."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.training.sharding import replicated, split, to_host
from bottlefit_jax.training.stages import Stage

Variables = dict[str, Any]


class TrainState(struct.PyTreeNode):
    """Everything a step changes.

    Attributes:
        step: int32, steps done in this stage.
        variables: the network's collections ("params", "batch_stats", and "ranges" where there is a static quantiser).
        opt_state: of the trained parameters only.
        metrics: sums since the epoch began, see `empty_metrics`.
    """

    step: Any
    variables: Variables
    opt_state: Any
    metrics: dict[str, Any]


def empty_metrics(terms: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of no steps: what `TrainState.metrics` is at the beginning of an epoch.

    They stay on the device, so that no step waits for the host to read a loss. The gradient is watched too: where it
    overflows, the weights are non-finite one step before any loss is.

    Args:
        terms: names of the loss's terms.

    Returns:
        "sum/TERM": sum over steps; "bad/TERM" and "bad/gradient": the first step at which it was not finite, -1 for
        none; "steps": their number.
    """
    metrics: dict[str, Any] = {f"sum/{term}": np.float32(0) for term in terms}
    metrics |= {f"bad/{term}": np.int32(-1) for term in (*terms, "gradient")}
    return metrics | {"steps": np.int32(0)}


def initial_state(stage: Stage, variables: Variables, *, tx: optax.GradientTransformation) -> TrainState:
    """Return the state in which a stage begins, in host memory.

    Args:
        stage: what is trained.
        variables: of the network it trains.
        tx: optimiser of the trained parameters.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        opt_state = to_host(tx.init(trained_params(variables, stage)))
    return TrainState(np.int32(0), variables, opt_state, empty_metrics(stage.terms))


def trained_params(variables: Variables, stage: Stage) -> dict[str, Any]:
    """Return the parameters of the stage's trained parts."""
    return {part: tree for part, tree in variables["params"].items() if part in stage.trained}


def loss_terms(
    stage: Stage, module: nn.Module, teacher: nn.Module | None, mean: Sequence[float], std: Sequence[float]
) -> Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], Any]]]:
    """Make `f(params, variables, teacher_variables, image, label, key) -> (loss, (terms, new batch statistics))`.

    Args:
        stage: what is trained and minimised.
        module: the network that the stage trains.
        teacher: the network whose outputs the loss compares with, or None.
        mean: of the images' channels, for `normalise`.
        std: likewise.
    """
    training = (*stage.in_training, *stage.statistics_only)

    def loss_fn(params, variables, teacher_variables, image, label, key):
        image = normalise(image, mean, std)
        target = None
        if stage.needs_teacher and teacher is not None:
            target = teacher.apply(teacher_variables, image, train=False)
        outputs, updates = module.apply(
            {**variables, "params": {**variables["params"], **params}},
            image,
            train=training,
            mutable=["batch_stats"],
            rngs={"dropout": key, "steps": jax.random.fold_in(key, 1)},
        )
        terms = stage.loss_fn(outputs, target, label)
        return jnp.asarray(sum(terms.values())), (terms, updates["batch_stats"])

    return loss_fn


def create_train_step(
    stage: Stage,
    *,
    module: nn.Module,
    teacher: nn.Module | None,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    mean: Sequence[float],
    std: Sequence[float],
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Make the jitted `train_step(state, teacher_variables, batch, key) -> (state, loss)`, which donates its state.

    Args:
        stage: what is trained and minimised.
        module: the network that the stage trains.
        teacher: the network whose outputs the loss compares with, or None.
        tx: optimiser of the trained parameters.
        mesh: from `create_mesh`; `batch` ({"image": [B, H, W, 3] uint8, "label": [B] int32}) is split over it.
        mean: of the images' channels, for `normalise`.
        std: likewise.
    """
    loss_fn = loss_terms(stage, module, teacher, mean, std)
    updated = {*stage.in_training, *stage.statistics_only}

    def train_step(state: TrainState, teacher_variables, batch, key) -> tuple[TrainState, jax.Array]:
        params = trained_params(state.variables, stage)
        (loss, (terms, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params,
            state.variables,
            teacher_variables,
            batch["image"],
            batch["label"],
            jax.random.fold_in(key, state.step),
        )
        updates, opt_state = tx.update(grads, state.opt_state, params)
        before = state.variables["batch_stats"]
        variables = {
            **state.variables,
            "params": state.variables["params"] | dict(optax.apply_updates(params, updates)),  # type: ignore[call-overload]
            "batch_stats": {part: (batch_stats if part in updated else before)[part] for part in before},
        }
        metrics = _add(state.metrics, terms, optax.tree.norm(grads), state.step)
        return TrainState(state.step + 1, variables, opt_state, metrics), loss

    whole = replicated(mesh)
    return jax.jit(
        train_step, in_shardings=(whole, whole, split(mesh), whole), out_shardings=whole, donate_argnums=(0,)
    )


def _add(
    metrics: dict[str, jax.Array], terms: dict[str, jax.Array], gradient: jax.Array, step: jax.Array
) -> dict[str, jax.Array]:
    new = {"steps": metrics["steps"] + 1}
    for term, value in {**terms, "gradient": gradient}.items():
        first = metrics[f"bad/{term}"]
        new[f"bad/{term}"] = jnp.where((first < 0) & ~jnp.isfinite(value), step, first)
    for term, value in terms.items():
        new[f"sum/{term}"] = metrics[f"sum/{term}"] + value.astype(jnp.float32)
    return new
