"""Optimisers and learning-rate schedules with PyTorch's arithmetic, out of optax's pieces."""

from collections.abc import Sequence

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
    """Learning rate by step number.

    Args:
        name: "multistep" (×gamma after each milestone, PyTorch's MultiStepLR), "cosine" (to 0) or "constant".
        learning_rate: peak rate.
        epochs: length of the stage.
        steps_per_epoch: optimiser steps in an epoch.
        milestones: epochs after which a multistep rate falls.
        gamma: factor of each fall.
        warmup_epochs: epochs of linear rise from 0, before any of the three.
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
    name: str, *, schedule: optax.ScalarOrSchedule, momentum: float = 0.9, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """PyTorch's SGD or Adam: weight decay joins the gradient, the rate stays outside the momentum.

    Args:
        name: "sgd" or "adam" (betas 0.9 / 0.999, eps 1e-8 added after the square root).
        schedule: learning rate, or a function of the step.
        momentum: of SGD, without Nesterov or dampening.
        weight_decay: added to the gradient as weight_decay × parameter, for every parameter.
    """
    if name == "sgd":
        rule = optax.trace(decay=momentum)
    elif name == "adam":
        rule = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
    else:
        raise UserError(f"unknown optimizer {name!r}; there are {', '.join(OPTIMIZERS)}")
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(*decay, rule, optax.scale_by_learning_rate(schedule))
