"""Losses of the stages: a function and a row of `LOSSES` for each.

A loss is `loss(student, teacher, label, **options) -> {term: scalar}`, and the sum of the terms is minimised. Terms
have names so that a message can name the one that is not finite. `student` and `teacher` are `(logits, features)`, as
a model's `apply` returns them.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bottlefit_jax.errors import UserError
from bottlefit_jax.models.network import AuxiliaryHead, Network

Outputs = tuple[jax.Array, Mapping[str, jax.Array]]
Terms = dict[str, jax.Array]
Options = dict[str, Any]
VARIANCE_FLOOR = 1e-6  # of a teacher's feature that hardly varies


def cross_entropy(
    student: Outputs,
    teacher: Outputs | None,
    label: jax.Array,
    *,
    label_smoothing: float = 0.0,
    heads: Sequence[AuxiliaryHead] = (),
) -> Terms:
    """Return the mean cross-entropy with the labels, and a term for each auxiliary head.

    Args:
        student: logits [B, K] float32, features.
        teacher: not used.
        label: [B] int32.
        label_smoothing: share of the target spread evenly over the classes.
        heads: the student's auxiliary heads that are trained.
    """
    del teacher
    logits, features = student
    terms = {"cross_entropy": _cross_entropy(logits, label, label_smoothing)}
    return terms | _of_heads(heads, features, label, label_smoothing)


def distillation(
    student: Outputs,
    teacher: Outputs | None,
    label: jax.Array,
    *,
    alpha: float,
    temperature: float,
    heads: Sequence[AuxiliaryHead] = (),
) -> Terms:
    """Return alpha·CE + (1 - alpha)·T²·KL(teacher ‖ student), means over the batch, and a term for each auxiliary head.

    torchdistill 0.3.2 `KDLoss(reduction="batchmean")`, except that alpha = 0 keeps its factor T² (there it is lost).

    Args:
        student: logits [B, K] float32, features.
        teacher: logits [B, K] float32, features.
        label: [B] int32.
        alpha: weight of the labels' term.
        temperature: T, which softens both sets of logits.
        heads: the student's auxiliary heads that are trained; they learn from the labels.
    """
    assert teacher is not None
    log_target = jax.nn.log_softmax(jax.lax.stop_gradient(teacher[0]) / temperature)
    log_student = jax.nn.log_softmax(student[0] / temperature)
    divergence = jnp.sum(jnp.exp(log_target) * (log_target - log_student), axis=-1).mean()
    return {
        "cross_entropy": alpha * _cross_entropy(student[0], label, 0.0),
        "distillation": (1.0 - alpha) * temperature**2 * divergence,
        **_of_heads(heads, student[1], label, 0.0),
    }


def feature_matching(
    student: Outputs,
    teacher: Outputs | None,
    label: jax.Array,
    *,
    features: Sequence[str],
    relative: bool = False,
    rate_weight: float | None = None,
) -> Terms:
    """Return the sum of squared errors over batch and elements, a term for each feature, and the term `rate`.

    This is generalised head distillation: BottleFit's `GeneralizedCustomLoss` of `MSELoss(reduction="sum")` terms with
    factor 1 (paper, section III-B). It grows with the batch, so the learning rate belongs to the batch size.

    A coarser step makes larger errors and fewer bits. An error grows with the square of the step, and so does the price
    of a bit, so that each step is trained for its own balance.

    Args:
        student: logits, features of [B, H, W, C].
        teacher: logits, features of the same shapes under the same names.
        label: not used.
        features: names of the features to match.
        relative: divide each feature's errors by the variance of the teacher's feature over the batch.
        rate_weight: of a bit at a step of 1; None where the density does not learn.
    """
    assert teacher is not None
    del label

    def squared_error(name: str) -> jax.Array:
        target = jax.lax.stop_gradient(teacher[1][name]).astype(jnp.float32)
        error = jnp.sum(jnp.square(student[1][name].astype(jnp.float32) - target))
        return error / jnp.maximum(jnp.var(target), VARIANCE_FLOOR) if relative else error

    terms = {name: squared_error(name) for name in features}
    if rate_weight is not None:
        terms["rate"] = rate_weight * jnp.sum(jnp.square(student[1]["step"]) * student[1]["bits"])
    return terms


def _of_heads(
    heads: Sequence[AuxiliaryHead], features: Mapping[str, jax.Array], label: jax.Array, label_smoothing: float
) -> Terms:
    """Return the weighted cross-entropy of each head, under the name of its part."""
    return {head.part: head.weight * _cross_entropy(features[head.feature], label, label_smoothing) for head in heads}


def _cross_entropy(logits: jax.Array, label: jax.Array, label_smoothing: float) -> jax.Array:
    if label_smoothing == 0.0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return optax.softmax_cross_entropy(logits, target).mean()


@dataclasses.dataclass(frozen=True)
class Loss:
    """A row of `LOSSES`.

    Attributes:
        function: the loss.
        options: (the stage's settings by name, the network, its trained parts) -> keyword arguments of `function`; it
            raises UserError for an invalid setting, in a message that begins with the setting's name.
        terms: options -> names of the terms that `function` returns.
        needs_teacher: whether `function` looks at the teacher's outputs.
    """

    function: Callable[..., Terms]
    options: Callable[[Mapping[str, Any], Network, Collection[str]], Options]
    terms: Callable[[Options], tuple[str, ...]]
    needs_teacher: bool = False


def _from_labels(*names: str) -> Callable[[Mapping[str, Any], Network, Collection[str]], Options]:
    """Return the `options` of a loss that reads the settings `names` and trains auxiliary heads from labels."""

    def options(settings: Mapping[str, Any], network: Network, trained: Collection[str]) -> Options:
        heads = tuple(head for head in network.auxiliary_heads if head.part in trained)
        return {**{name: settings[name] for name in names if name in settings}, "heads": heads}

    return options


def _matched_features(settings: Mapping[str, Any], network: Network, trained: Collection[str]) -> Options:
    """Return the features to match: those that the setting `matched` names, or else the network's own."""
    known = network.feature_names
    known = known[known.index(network.matched[0]) :]  # a student has none of those before its cut
    features = tuple(settings.get("matched") or network.matched)
    if unknown := [feature for feature in features if feature not in known]:
        raise UserError(f"matched names {unknown[0]!r}; the student has {', '.join(known)}")
    if heads := [head.part for head in network.auxiliary_heads if head.part in trained]:
        raise UserError(
            f"loss is 'feature_matching', from which the classifier {heads[0]!r} learns nothing; it can be "
            "cross_entropy or distillation"
        )
    rate = {"rate_weight": settings["rate_weight"]} if "density" in trained else {}
    return {"features": features, "relative": bool(settings.get("relative")), **rate}


def _head_terms(options: Options) -> tuple[str, ...]:
    return tuple(head.part for head in options["heads"])


# name in a stage -> what it computes, and which settings of the stage it has
LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(
        cross_entropy,
        options=_from_labels("label_smoothing"),
        terms=lambda options: ("cross_entropy", *_head_terms(options)),
    ),
    "distillation": Loss(
        distillation,
        options=_from_labels("alpha", "temperature"),
        terms=lambda options: ("cross_entropy", "distillation", *_head_terms(options)),
        needs_teacher=True,
    ),
    "feature_matching": Loss(
        feature_matching,
        options=_matched_features,
        terms=lambda options: (*options["features"], *(("rate",) if "rate_weight" in options else ())),
        needs_teacher=True,
    ),
}
