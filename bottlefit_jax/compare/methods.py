"""The methods of the comparison, a row each: how a method changes the config of a run, and how plots show it.

Everything that is trained has the same images, the same teacher and as many epochs as BottleFit in its two stages.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from bottlefit_jax.drawing.colours import BLACK, GREEN, GREY, JPEG, NAVY, PURPLE, SKY, SPLIT, WEBP, WINE
from bottlefit_jax.recipe import Config

QUALITIES = (5, 10, 20, 30, 50, 70, 85, 95)  # of JPEG and WebP, on Pillow's scale
DCT_STEPS = (0.25, 0.35, 0.5, 0.7, 1.0)  # of the design dct, whose latents have the units of normalised images
RATE_WEIGHT, RATE_STEPS = 0.1, (1.0,)  # of the rate term, where the config sets no weight


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of the comparison.

    Attributes:
        name: in paths, flags and compare.json.
        title: for people.
        colour: in plots; there are more methods than colours that everybody tells apart, so ours differ from each other
            and from files, and each method has a marker of its own.
        marker: in plots, as Matplotlib spells it.
        image_format: Pillow's name of the format, where images are sent.
        change: makes the config of a training from a copy of the comparison's config, whose rate term is set already;
            called with the copy and the name of the feature at the cut. None where nothing is trained.
        own_bytes: it has a size of its own, whatever number of channels the others have.
        channels: of its latent, where these are its own too and no other method's bytes decide them; else 0.
        cut: the feature at which its authors cut, for networks that have it; "": where all methods cut.
        rate: stage 1 has the rate term, with what `rate_term` returns.
        keeps_teacher: its device runs the teacher's own parts up to the cut.
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
    channels: int = 0
    cut: str = ""
    rate: bool = False
    keeps_teacher: bool = False
    ours: bool = False
    note: str = ""

    def apply(self, config: Config, cut: str) -> None:
        """Make the config of a training from a copy of the comparison's.

        Args:
            config: the copy, which changes.
            cut: the feature at which the student is cut.
        """
        assert self.change is not None
        if self.rate:
            config.student.rate.update(rate_term(config))
        else:
            config.student.rate.weight = 0.0
        self.change(config, cut)


def rate_term(config: Config) -> dict[str, Any]:
    """Return weight and steps of the rate term: the config's if it has a weight, or else our defaults."""
    chosen = config.student.rate
    if chosen.weight:
        return {"weight": chosen.weight, "steps": tuple(chosen.steps)}
    return {"weight": RATE_WEIGHT, "steps": RATE_STEPS}


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


def _dct(config: Config, cut: str) -> None:
    """Train as BottleFit, by Adam: the decoder's inputs are as large as coefficients are, and SGD diverges."""
    del cut
    config.student.bottleneck.update(design="dct", cut="")
    config.student.rate.steps = DCT_STEPS
    config.stages.stage1.update(optimizer="adam", learning_rate=2e-3)  # its transform has a slower pace
    config.stages.stage2.update(optimizer="adam", learning_rate=3e-4, weight_decay=0.0)


def _entropic(config: Config, cut: str) -> None:
    """Train as BottleFit, at one step alone: the source has a model for each size of payload."""
    del cut
    config.student.bottleneck.design = "entropic"
    config.student.rate.steps = (1.0,)
    config.stages.stage1.update(matched=(), learning_rate=1e-3)  # all features from its own cut on; its authors' rate
    config.stages.stage2.update(loss="distillation", alpha=0.5, temperature=1.0, freeze_encoder=True)


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


# name -> a row of the comparison, in the order of its table
METHODS = {
    method.name: method
    for method in (
        Method("local", "local", BLACK, ".", note="the teacher on the device; nothing is sent"),
        Method(
            *("jpeg", "JPEG", *JPEG),
            image_format="JPEG",
            note="the image at the network's input size, the teacher on the server",
        ),
        Method("webp", "WebP", *WEBP, image_format="WEBP", note="as JPEG"),
        Method("vanilla", "vanilla", GREY, "v", change=_vanilla, note="BottleFit's student, by cross-entropy alone"),
        Method("kd", "KD", "#8A7A12", "s", change=_kd, note="the same student, by labels and the teacher's logits"),
        Method("hnd", "HND", "#59A14F", "P", change=_hnd, note="stage 1 on the feature at the cut alone, no stage 2"),
        Method("ghnd", "GHND", "#1C6B43", "X", change=_ghnd, note="stage 1 on all features, no stage 2"),
        Method(
            *("bottlefit", "BottleFit", *SPLIT),
            change=_bottlefit,
            ours=True,
            note="stage 1, then stage 2 behind the frozen encoder",
        ),
        Method(
            *("bottlefit-patch", "BottleFit-patch", SKY, "h"),
            change=_patch,
            ours=True,
            note="the same training, with our encoder: 4×4 patches, a depthwise and a 1×1 convolution",
        ),
        Method(
            *("bottlefit-rate", "BottleFit+rate", NAVY, "p"),
            change=_bottlefit,
            rate=True,
            ours=True,
            note="the same, and stage 1 also learns to send few bits; one training serves all its rates",
        ),
        Method(
            *("bottlefit-patch-rate", "BottleFit-patch+rate", GREEN, "H"),
            change=_patch,
            rate=True,
            ours=True,
            note="both",
        ),
        Method(
            *("bottlefit-dct-rate", "BottleFit-dct+rate", WINE, "8"),
            change=_dct,
            own_bytes=True,
            channels=32,
            rate=True,
            ours=True,
            note="the same losses; the encoder is one convolution that begins as JPEG's transform, and the decoder "
            f"restores the image for the whole teacher. Its steps are {DCT_STEPS[0]:g} to {DCT_STEPS[-1]:g}, as its "
            "latents have the units of normalised images",
        ),
        Method(
            *("entropic", "Entropic Student", PURPLE, "*"),
            change=_entropic,
            own_bytes=True,
            channels=24,
            cut="layer1",
            rate=True,
            note="two convolutions 5×5 and one 2×2 with divisive normalisation, 24 channels whose number of bytes the "
            "rate term alone decides, trained at one step; cut after layer1 as by its authors, or at the common cut "
            "where the network has no layer1",
        ),
        Method(
            *("cr-bq", "CR+BQ", "#7A4FA3", ">"),
            change=_channel_reduction,
            keeps_teacher=True,
            note="1×1 convolutions after the backbone's full prefix reduce and restore the channels; cross-entropy",
        ),
        Method(
            *("autoencoder", "autoencoder", "#C2558F", "<"),
            change=_autoencoder,
            keeps_teacher=True,
            note="2×2 convolutions 128, 64, 32, c after the full prefix and back; trained to restore the feature, "
            "then by cross-entropy with everything else",
        ),
        Method(
            *("spinn", "SPINN", "#7B5A3A", "d"),
            change=_spinn,
            own_bytes=True,
            keeps_teacher=True,
            note="an early exit at the cut (3×3 convolution, linear layer), trained with the whole network; where "
            "it is less confident than the threshold, the feature at the cut is sent at its report's default rate. "
            "The payload was smaller than zlib's of the same values for every image of the digits",
        ),
    )
}
OURS = tuple(method.name for method in METHODS.values() if method.ours)
