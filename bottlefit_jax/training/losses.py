"""Losses of the stages. Each returns named terms, so that a term that is not finite can be named.

A loss is `loss(student, teacher, label, **options) -> {term: scalar}`; what is minimised is the sum.
`student` and `teacher` are `(logits, features)` as a model's `apply` returns them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

Outputs = tuple[jax.Array, Mapping[str, jax.Array]]
Terms = dict[str, jax.Array]

AUXILIARY_WEIGHT = 0.4  # of Inception-v3's second classifier, as in its paper and torchvision's references


def cross_entropy(
    student: Outputs, teacher: Outputs | None, label: jax.Array, *, label_smoothing: float = 0.0
) -> Terms:
    """Mean cross-entropy with the labels; a model's auxiliary classifier and its early exit add terms of their own.

    An early exit weighs as much as the last classifier, so that one network serves both.

    Args:
        student: logits [B, K] float32, features.
        teacher: not used.
        label: [B] int32.
        label_smoothing: share of the target spread evenly over the classes.
    """
    del teacher
    logits, features = student
    terms = {"cross_entropy": _cross_entropy(logits, label, label_smoothing)}
    if "aux_logits" in features:
        terms["auxiliary"] = AUXILIARY_WEIGHT * _cross_entropy(features["aux_logits"], label, label_smoothing)
    return terms | _of_exit(features, label, label_smoothing)


def distillation(
    student: Outputs, teacher: Outputs | None, label: jax.Array, *, alpha: float, temperature: float
) -> Terms:
    """alpha·CE + (1 - alpha)·T²·KL(teacher ‖ student), means over the batch.

    torchdistill 0.3.2 `KDLoss(reduction="batchmean")`, except that alpha = 0 keeps its factor T² (there it is lost).

    Args:
        student: logits [B, K] float32, features.
        teacher: logits [B, K] float32, features.
        label: [B] int32.
        alpha: weight of the labels' term.
        temperature: T, which softens both sets of logits.
    """
    assert teacher is not None
    log_target = jax.nn.log_softmax(jax.lax.stop_gradient(teacher[0]) / temperature)
    log_student = jax.nn.log_softmax(student[0] / temperature)
    divergence = jnp.sum(jnp.exp(log_target) * (log_target - log_student), axis=-1).mean()
    return {
        "cross_entropy": alpha * _cross_entropy(student[0], label, 0.0),
        "distillation": (1.0 - alpha) * temperature**2 * divergence,
        **_of_exit(student[1], label, 0.0),
    }


def feature_matching(student: Outputs, teacher: Outputs | None, label: jax.Array, *, features: Sequence[str]) -> Terms:
    """Sum of squared errors over batch and elements, a term for each feature (generalised head distillation).

    BottleFit's `GeneralizedCustomLoss` of `MSELoss(reduction="sum")` terms with factor 1 (paper, section III-B).
    It grows with the batch, so the learning rate belongs to the batch size.

    Args:
        student: logits, features of [B, H, W, C].
        teacher: logits, features of the same shapes under the same names.
        label: not used.
        features: names of the features to match.
    """
    assert teacher is not None
    del label

    def squared_error(name: str) -> jax.Array:
        target = jax.lax.stop_gradient(teacher[1][name]).astype(jnp.float32)
        return jnp.sum(jnp.square(student[1][name].astype(jnp.float32) - target))

    return {name: squared_error(name) for name in features}


def _of_exit(features: Mapping[str, jax.Array], label: jax.Array, label_smoothing: float) -> Terms:
    """The cross-entropy of an early exit, where there is one."""
    if "exit_logits" not in features:
        return {}
    return {"exit": _cross_entropy(features["exit_logits"], label, label_smoothing)}


def _cross_entropy(logits: jax.Array, label: jax.Array, label_smoothing: float) -> jax.Array:
    if label_smoothing == 0.0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return optax.softmax_cross_entropy(logits, target).mean()


LOSSES: dict[str, Any] = {
    "cross_entropy": cross_entropy,
    "distillation": distillation,
    "feature_matching": feature_matching,
}
