"""The methods of the comparison, a row each: how a method changes the config of a run, and how plots show it.

Everything that is trained has the same images, the same teacher and as many epochs as BottleFit in its two stages.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from bottlefit_jax.evaluation.colours import BLUE, ORANGE, RED
from bottlefit_jax.recipe import Config

QUALITIES = (5, 10, 20, 30, 50, 70, 85, 95)  # of JPEG and WebP, on Pillow's scale


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of the comparison.

    Attributes:
        name: in paths, flags and compare.json.
        title: for people.
        colour: in plots.
        marker: in plots, as Matplotlib spells it.
        image_format: Pillow's name of the format, where images are sent.
        change: makes the config of a training from a copy of the comparison's config; called with the copy and the name
            of the feature at the cut. None where nothing is trained.
        own_bytes: it has a size of its own, whatever number of channels the others have.
        ours: BottleFit itself; plots emphasise it, and the text asks whether others beat it.
        note: what a reader must know, for the report.
    """

    name: str
    title: str
    colour: str
    marker: str
    image_format: str = ""
    change: Callable[[Config, str], None] | None = None
    own_bytes: bool = False
    ours: bool = False
    note: str = ""


def student_epochs(config: Config) -> int:
    """Return how many epochs a student is trained, in both stages together."""
    return config.stages.stage1.epochs + config.stages.stage2.epochs


def _train_from_labels(config: Config, **stage2: Any) -> None:
    """Train in stage 2 alone, and everything, as the teacher was: same optimiser and rate, a cosine over all epochs."""
    teacher = config.stages.teacher
    config.stages.stage2.update(
        epochs=student_epochs(config), freeze_encoder=False, schedule="cosine", **{"loss": "cross_entropy", **stage2},
        **{key: teacher[key] for key in ("optimizer", "learning_rate", "momentum", "weight_decay", "warmup_epochs")},
    )  # fmt: skip
    config.stages.stage1.epochs = 0


def _distil(config: Config, matched: tuple[str, ...]) -> None:
    """Train in stage 1 alone."""
    config.stages.stage1.update(epochs=student_epochs(config), matched=matched)
    config.stages.stage2.epochs = 0


def _use_reference_encoder(config: Config) -> None:
    """Replace our encoder, which is a row of its own, by the reference's."""
    if config.student.bottleneck.design == "patch":
        config.student.bottleneck.design = "bottlefit"


def _vanilla(config: Config, cut: str) -> None:
    del cut
    _use_reference_encoder(config)
    _train_from_labels(config)


def _kd(config: Config, cut: str) -> None:
    del cut
    _use_reference_encoder(config)
    _train_from_labels(config, loss="distillation")


def _hnd(config: Config, cut: str) -> None:
    _use_reference_encoder(config)
    _distil(config, (cut,))


def _ghnd(config: Config, cut: str) -> None:
    del cut
    _use_reference_encoder(config)
    _distil(config, config.stages.stage1.matched)


def _bottlefit(config: Config, cut: str) -> None:
    del cut
    _use_reference_encoder(config)  # everything else is as in the config


def _patch(config: Config, cut: str) -> None:
    del cut
    config.student.bottleneck.design = "patch"


def _channel_reduction(config: Config, cut: str) -> None:
    del cut
    config.student.bottleneck.design = "reduction"
    _train_from_labels(config)


def _autoencoder(config: Config, cut: str) -> None:
    config.student.bottleneck.design = "autoencoder"
    config.stages.stage1.matched = (cut,)
    config.stages.stage2.update(loss="cross_entropy", freeze_encoder=False)


def _spinn(config: Config, cut: str) -> None:
    del cut
    config.student.bottleneck.design = "spinn"
    _train_from_labels(config)


METHODS = {
    method.name: method
    for method in (
        Method("local", "local", "black", "s", note="the teacher on the device; nothing is sent"),
        Method(
            *("jpeg", "JPEG", ORANGE, "s"),
            image_format="JPEG",
            note="the image at the network's input size, the teacher on the server",
        ),
        Method("webp", "WebP", RED, "D", image_format="WEBP", note="as JPEG"),
        Method(
            "vanilla", "vanilla", "#8c8c8c", "v", change=_vanilla, note="BottleFit's student, by cross-entropy alone"
        ),
        Method("kd", "KD", "#8a7a12", "^", change=_kd, note="the same student, by labels and the teacher's logits"),
        Method("hnd", "HND", "#59a14f", "P", change=_hnd, note="stage 1 on the feature at the cut alone, no stage 2"),
        Method("ghnd", "GHND", "#1c6b43", "X", change=_ghnd, note="stage 1 on all features, no stage 2"),
        Method(
            *("bottlefit", "BottleFit", BLUE, "o"),
            change=_bottlefit,
            ours=True,
            note="stage 1, then stage 2 behind the frozen encoder",
        ),
        Method(
            *("bottlefit-patch", "BottleFit-patch", "#1e9bd7", "h"),
            change=_patch,
            ours=True,
            note="the same training, with our encoder: 4×4 patches, a depthwise and a 1×1 convolution",
        ),
        Method(
            *("cr-bq", "CR+BQ", "#7a4fa3", ">"),
            change=_channel_reduction,
            note="1×1 convolutions after the backbone's full prefix reduce and restore the channels; cross-entropy",
        ),
        Method(
            *("autoencoder", "autoencoder", "#c2558f", "<"),
            change=_autoencoder,
            note="2×2 convolutions 128, 64, 32, c after the full prefix and back; trained to restore the feature, "
            "then by cross-entropy with everything else",
        ),
        Method(
            *("spinn", "SPINN", "#7b5a3a", "d"),
            change=_spinn,
            own_bytes=True,
            note="an early exit at the cut (3×3 convolution, linear layer), trained with the whole network; where "
            "it is less confident than the threshold, the feature at the cut is sent at its report's default rate. "
            "The payload was smaller than zlib's of the same values for every image of the digits",
        ),
    )
}
OURS = tuple(method.name for method in METHODS.values() if method.ours)
