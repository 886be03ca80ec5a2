"""Optimisers and learning-rate schedules with PyTorch's arithmetic, composed of optax's."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from bottlefit_jax.errors import UserError

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("multistep", "cosine", "constant")


def create_schedule(
    name: str,
    *,
    learning_rate: float,
    epochs: int,
    steps_per_epoch: int,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    warmup_epochs: int = 0,
) -> optax.Schedule:
    """Return the learning rate as a function of the step.

    Args:
        name: "multistep" (×gamma after each milestone, PyTorch's MultiStepLR), "cosine" (to 0) or "constant".
        learning_rate: peak rate.
        epochs: length of the stage.
        steps_per_epoch: optimiser steps in an epoch.
        milestones: epochs after which a multistep rate falls.
        gamma: factor of each fall.
        warmup_epochs: epochs of linear rise from 0, before any of the three.

    Raises:
        UserError: an unknown schedule.
    """
    if name == "multistep":
        falls: dict[int, float] = {}
        for epoch in milestones:
            falls[(epoch - warmup_epochs) * steps_per_epoch] = gamma
        schedule = optax.piecewise_constant_schedule(learning_rate, falls)
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(learning_rate, max(1, (epochs - warmup_epochs) * steps_per_epoch))
    elif name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    else:
        raise UserError(f"unknown schedule {name!r}; there are {', '.join(SCHEDULES)}")
    if not warmup_epochs:
        return schedule
    rise = warmup_epochs * steps_per_epoch
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, rise), schedule], [rise])


def create_optimizer(
    name: str,
    *,
    schedule: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    paces: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """Return PyTorch's SGD or Adam: weight decay is added to the gradient, the rate stays outside the momentum.

    Args:
        name: "sgd" or "adam" (betas 0.9 / 0.999, eps 1e-8 added after the square root).
        schedule: learning rate, or a function of the step.
        momentum: of SGD, without Nesterov or dampening.
        weight_decay: added to the gradient as weight_decay × parameter, for every parameter.
        paces: factors of the learning rate, by the parameter's path, such as "encoder/0/kernel"; 1 for all others.

    Raises:
        UserError: an unknown optimiser.
    """
    if name == "sgd":
        rule = optax.trace(decay=momentum)
    elif name == "adam":
        rule = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
    else:
        raise UserError(f"unknown optimizer {name!r}; there are {', '.join(OPTIMIZERS)}")
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    factors = dict(paces or {})

    def at_its_pace(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * factors.get("/".join(key.key for key in path), 1.0)

    pace = [optax.stateless(lambda updates, _: jax.tree.map_with_path(at_its_pace, updates))] if factors else []
    return optax.chain(*decay, rule, *pace, optax.scale_by_learning_rate(schedule))
