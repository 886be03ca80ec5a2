"""Stages: what each trains, freezes, matches and minimises. One loop (`loop.py`) runs them all.

Adding a stage is adding a row to `STAGES`, and its numbers to the config (`recipe.py`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from bottlefit_jax.errors import UserError
from bottlefit_jax.training.losses import LOSSES, Terms

BOTTLENECK = ("encoder", "decoder")


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A row of `STAGES`.

    Attributes:
        network: "teacher" or "student".
        trains: parts of the network, or None for all of them.
        losses: names in `LOSSES` that the stage can minimise; the first unless the config names one.
    """

    network: str
    trains: tuple[str, ...] | None
    losses: tuple[str, ...]


STAGES: dict[str, Declaration] = {
    # A teacher from scratch, where no weights are given.
    "teacher": Declaration("teacher", None, ("cross_entropy",)),
    # Generalised head distillation: encoder and decoder reproduce the teacher's features.
    "stage1": Declaration("student", BOTTLENECK, ("feature_matching",)),
    # Fine-tuning, behind a frozen encoder or not.
    "stage2": Declaration("student", None, ("cross_entropy", "distillation")),
}

NEEDS_TEACHER = ("feature_matching", "distillation")  # losses that look at the teacher's outputs


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of one run: its declaration, met with a network and a config.

    Attributes:
        name: its name in config, checkpoints and reports.
        network: "teacher" or "student".
        trained: parts of which parameters and batch statistics change.
        drifting: parts whose parameters are frozen and whose batch statistics move all the same, as in the reference.
        terms: names of the loss's terms.
        loss_fn: (student outputs, teacher outputs or None, label) -> terms.
        needs_teacher: whether `loss_fn` looks at the teacher's outputs.
        epochs, batch_size: length, and images in a step over all devices.
    """

    name: str
    network: str
    trained: tuple[str, ...]
    drifting: tuple[str, ...]
    terms: tuple[str, ...]
    loss_fn: Callable[..., Terms]
    needs_teacher: bool
    epochs: int
    batch_size: int


def create_stage(
    name: str, settings: Any, *, parts: Sequence[str], matched: Sequence[str], drift: bool = False
) -> Stage:
    """Meets the declaration of `name` with a network's parts.

    Args:
        name: key of `STAGES`.
        settings: the stage's part of the config.
        parts: the network's top-level parts, in order.
        matched: the features that the network matches by default.
        drift: let frozen parts run in training mode (the reference's behaviour).

    Raises:
        UserError: an unknown stage, loss or feature.
    """
    declaration = STAGES[name]
    frozen: Sequence[str] = ()
    if settings.get("freeze_encoder") and declaration.trains is None:
        frozen = parts[: parts.index("encoder") + 1]  # with what runs before it on the device
    trained = tuple(part for part in parts if part in (declaration.trains or parts) and part not in frozen)
    loss = settings.get("loss") or declaration.losses[0]
    if loss not in declaration.losses:
        raise UserError(f"stages.{name}.loss is {loss!r}; it can be {' or '.join(declaration.losses)}")
    options: dict[str, Any] = {}
    terms: tuple[str, ...] = ("cross_entropy",)
    if loss == "feature_matching":
        terms = options["features"] = _matched(name, settings, parts, matched)
    elif loss == "distillation":
        options.update(alpha=settings.alpha, temperature=settings.temperature)
        terms += ("distillation",)
    else:
        options["label_smoothing"] = settings.get("label_smoothing", 0.0)
        terms += ("auxiliary",) * ("AuxLogits" in trained)
    if loss != "feature_matching":
        terms += ("exit",) * ("exit" in parts)
    return Stage(
        name=name,
        network=declaration.network,
        trained=trained,
        drifting=tuple(part for part in parts if part not in trained) if drift else (),
        terms=terms,
        loss_fn=functools.partial(LOSSES[loss], **options),
        needs_teacher=loss in NEEDS_TEACHER,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
    )


def _matched(name: str, settings: Any, parts: Sequence[str], matched: Sequence[str]) -> tuple[str, ...]:
    features = tuple(settings.matched) or tuple(matched)
    unknown = [feature for feature in features if feature not in (*parts, *matched)]
    if unknown:
        known = [part for part in parts if part not in BOTTLENECK]
        raise UserError(
            f"stages.{name}.matched names {unknown[0]!r}; the student has {', '.join([*matched[:1], *known])}"
        )
    return features
