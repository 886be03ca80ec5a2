"""What is compared, a row each: how a method's config differs from the one that was given.

All that is trained gets the same images, the same teacher and as many epochs as BottleFit has in its two stages.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from bottlefit_jax.recipe import Config

QUALITIES = (5, 10, 20, 30, 50, 70, 85, 95)  # of JPEG and WebP, on Pillow's scale
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # of SPINN's exit; above 1 it never answers
NEVER = 1.01


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of the comparison.

    Attributes:
        name: in paths, flags and compare.json.
        title: for people.
        image_format: Pillow's name, where images are sent.
        change: makes the config of a training out of a copy of the one that was given, where something is trained;
            called with the copy and the name of the feature at the cut.
        own_bytes: it sends what it sends, however many channels the others have.
        note: what a reader must know, for the report.
    """

    name: str
    title: str
    image_format: str = ""
    change: Callable[[Config, str], None] | None = None
    own_bytes: bool = False
    note: str = ""


def student_epochs(config: Config) -> int:
    """How long a student is trained, in both stages together."""
    return config.stages.stage1.epochs + config.stages.stage2.epochs


def _from_labels(config: Config, **stage2: Any) -> None:
    """Stage 2 alone, everything trained as the teacher was: same optimiser and rate, a cosine over all epochs."""
    teacher = config.stages.teacher
    config.stages.stage2.update(
        epochs=student_epochs(config), freeze_encoder=False, schedule="cosine", **{"loss": "cross_entropy", **stage2},
        **{key: teacher[key] for key in ("optimizer", "learning_rate", "momentum", "weight_decay", "warmup_epochs")},
    )  # fmt: skip
    config.stages.stage1.epochs = 0


def _distilled(config: Config, matched: tuple[str, ...]) -> None:
    """Stage 1 alone."""
    config.stages.stage1.update(epochs=student_epochs(config), matched=matched)
    config.stages.stage2.epochs = 0


def _with_reference_encoder(config: Config) -> None:
    """Where the config has our encoder, which is a row of its own, the others take the reference's."""
    if config.student.bottleneck.design == "patch":
        config.student.bottleneck.design = "bottlefit"


def _vanilla(config: Config, cut: str) -> None:
    del cut
    _with_reference_encoder(config)
    _from_labels(config)


def _kd(config: Config, cut: str) -> None:
    del cut
    _with_reference_encoder(config)
    _from_labels(config, loss="distillation")


def _hnd(config: Config, cut: str) -> None:
    _with_reference_encoder(config)
    _distilled(config, (cut,))


def _ghnd(config: Config, cut: str) -> None:
    del cut
    _with_reference_encoder(config)
    _distilled(config, config.stages.stage1.matched)


def _bottlefit(config: Config, cut: str) -> None:
    del cut
    _with_reference_encoder(config)  # everything else is what the config says


def _patch(config: Config, cut: str) -> None:
    del cut
    config.student.bottleneck.design = "patch"


def _channel_reduction(config: Config, cut: str) -> None:
    del cut
    config.student.bottleneck.design = "reduction"
    _from_labels(config)


def _autoencoder(config: Config, cut: str) -> None:
    config.student.bottleneck.design = "autoencoder"
    config.stages.stage1.matched = (cut,)
    config.stages.stage2.update(loss="cross_entropy", freeze_encoder=False)


def _spinn(config: Config, cut: str) -> None:
    del cut
    config.student.bottleneck.design = "spinn"
    _from_labels(config)


METHODS = {
    method.name: method
    for method in (
        Method("local", "local", note="the teacher on the device; nothing is sent"),
        Method("jpeg", "JPEG", "JPEG", note="the image at the network's input size, the teacher on the server"),
        Method("webp", "WebP", "WEBP", note="as JPEG"),
        Method("vanilla", "vanilla", change=_vanilla, note="BottleFit's student, by cross-entropy alone"),
        Method("kd", "KD", change=_kd, note="the same student, by labels and the teacher's logits"),
        Method("hnd", "HND", change=_hnd, note="stage 1 on the feature at the cut alone, no stage 2"),
        Method("ghnd", "GHND", change=_ghnd, note="stage 1 on all features, no stage 2"),
        Method("bottlefit", "BottleFit", change=_bottlefit, note="stage 1, then stage 2 behind the frozen encoder"),
        Method(
            "bottlefit-patch",
            "BottleFit-patch",
            change=_patch,
            note="the same training, with our encoder: 4×4 patches, a depthwise and a 1×1 convolution",
        ),
        Method(
            "cr-bq",
            "CR+BQ",
            change=_channel_reduction,
            note="1×1 convolutions after the backbone's full prefix reduce and restore the channels; cross-entropy",
        ),
        Method(
            "autoencoder",
            "autoencoder",
            change=_autoencoder,
            note="2×2 convolutions 128, 64, 32, c after the full prefix and back; trained to restore the feature, "
            "then by cross-entropy with everything else",
        ),
        Method(
            "spinn",
            "SPINN",
            change=_spinn,
            own_bytes=True,
            note="an early exit at the cut (3×3 convolution, linear layer), trained with the whole network; where "
            "it is less confident than the threshold, the feature at the cut is sent in 8 bits, compressed with zlib",
        ),
    )
}
