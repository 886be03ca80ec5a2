"""Stages: what each trains, freezes, matches and minimises. One loop (`loop.py`) runs them all.

Adding a stage is adding a row to `STAGES`, and its numbers to the config (`recipe.py`).
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bottlefit_jax.errors import UserError
from bottlefit_jax.models.designs import PARTS
from bottlefit_jax.models.network import Network
from bottlefit_jax.training.losses import LOSSES, Terms

BOTTLENECK = ("encoder", "decoder", "density")  # the density only where the student is trained for rates


class Role(enum.StrEnum):
    """Which of a run's two networks."""

    TEACHER = "teacher"
    STUDENT = "student"


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A row of `STAGES`.

    Attributes:
        network: the network that the stage trains.
        trains: parts of the network, or None for all of them.
        losses: names in `LOSSES` that the stage can minimise; the first unless its settings name one.
    """

    network: Role
    trains: tuple[str, ...] | None
    losses: tuple[str, ...]


# name -> what a stage trains and from what, in the order in which they run
STAGES: dict[str, Declaration] = {
    # A teacher from scratch, where no weights are given.
    "teacher": Declaration(Role.TEACHER, None, ("cross_entropy",)),
    # Generalised head distillation: encoder and decoder reproduce the teacher's features.
    "stage1": Declaration(Role.STUDENT, BOTTLENECK, ("feature_matching",)),
    # Fine-tuning, behind a frozen encoder or not.
    "stage2": Declaration(Role.STUDENT, None, ("cross_entropy", "distillation", "feature_matching")),
}


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """What a run sets for a stage.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in a step, over all devices.
        loss: a name in `LOSSES`; None: the first of the stage's.
        freeze_encoder: whether the encoder, and what runs before it on the device, keeps its weights.
        fixed_norms: the teacher's layers keep their batch statistics while they are trained.
        loss_options: settings that only some losses read, by name ("alpha", "matched", …).
    """

    epochs: int
    batch_size: int
    loss: str | None = None
    freeze_encoder: bool = False
    fixed_norms: bool = False
    loss_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of one run: its declaration, applied to a network and to settings.

    Attributes:
        name: its name in config, checkpoints and reports.
        network: the network that it trains.
        trained: parts whose parameters and batch statistics change.
        in_training: those of them that run in training mode, where batch norms use and record the batch's statistics.
        statistics_only: frozen parts whose batch statistics change all the same, as in the reference.
        terms: names of the loss's terms.
        loss_fn: (student outputs, teacher outputs or None, label) -> terms.
        needs_teacher: whether `loss_fn` looks at the teacher's outputs.
        epochs: passes over the training images.
        batch_size: images in a step, over all devices.
    """

    name: str
    network: Role
    trained: tuple[str, ...]
    in_training: tuple[str, ...]
    statistics_only: tuple[str, ...]
    terms: tuple[str, ...]
    loss_fn: Callable[..., Terms]
    needs_teacher: bool
    epochs: int
    batch_size: int


def create_stage(name: str, settings: StageSettings, network: Network, *, update_statistics: bool = False) -> Stage:
    """Apply the declaration of a stage to a network.

    Args:
        name: key of `STAGES`.
        settings: of this stage.
        network: the teacher or the student, as the declaration says.
        update_statistics: run frozen parts in training mode, so that their batch statistics change (the reference's
            behaviour).

    Raises:
        UserError: an unknown loss or feature.
    """
    declaration = STAGES[name]
    parts = network.parts
    frozen: Sequence[str] = ()
    if settings.freeze_encoder and declaration.trains is None:
        frozen = parts[: parts.index("encoder") + 1]
    known = (*parts, *network.training_parts) if declaration.trains else parts
    trained = tuple(part for part in known if part in (declaration.trains or parts) and part not in frozen)
    own = (*PARTS, *network.training_parts)
    chosen = settings.loss or declaration.losses[0]
    if chosen not in declaration.losses:
        raise UserError(f"stages.{name}.loss is {chosen!r}; it can be {' or '.join(declaration.losses)}")
    loss = LOSSES[chosen]
    try:
        options = loss.options(settings.loss_options, network, trained)
    except UserError as error:
        raise UserError(f"stages.{name}.{error}") from None
    return Stage(
        name=name,
        network=declaration.network,
        trained=trained,
        in_training=tuple(part for part in trained if not settings.fixed_norms or part in own),
        statistics_only=tuple(part for part in parts if part not in trained) if update_statistics else (),
        terms=loss.terms(options),
        loss_fn=functools.partial(loss.function, **options),
        needs_teacher=loss.needs_teacher,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
    )
