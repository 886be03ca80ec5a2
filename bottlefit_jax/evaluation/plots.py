"""The report's two plots: the curves of the training, and latents. They use figures alone, no global plot state."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bottlefit_jax.codec.quantizer import levels_of
from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits, number
from bottlefit_jax.drawing.colours import BLUE, GREEN, GREY, ORANGE, VERMILLION, ink
from bottlefit_jax.drawing.figures import SMALL, TEXT, WIDTH, figure, save, title
from bottlefit_jax.errors import UserError

COLUMNS = 3  # stages beside each other; of more, the plots would be too narrow to read
NARROW, MAX_INCHES = 1.6, 3.0  # of an image with its maps three fit beside each other; no image is higher
MAX_CHANNELS = 12  # the largest bottleneck of the reference; more maps than this are too small to read


def training_curves(
    path: str | os.PathLike,
    history: Sequence[Mapping],
    *,
    log_stages: Sequence[str] = ("stage1",),
    measure: str = "top-1",
):
    """Draw loss and top-1 by epoch, a column for each stage, three beside each other.

    Args:
        path: where to write the PNG.
        history: one entry per epoch, in order: `{"stage", "epoch", "train_loss"}` and, where they were measured,
            "eval_loss", "top1" (percent) and "learning_rate". A number that is not finite leaves a gap.
        log_stages: the stages whose loss is a sum of squares, drawn on a logarithmic scale.
        measure: what "top1" is called.

    Raises:
        UserError: the history is empty, or the file cannot be written.
    """
    if not history:
        raise UserError("cannot draw training curves: the history has no epochs")
    save(_curves(history, log_stages, measure), path)


def _curves(history: Sequence[Mapping], log_stages: Sequence[str], measure: str) -> Figure:
    """Return the figure of `training_curves`."""
    stages = {name: [entry for entry in history if entry["stage"] == name] for name in _names(history)}
    plot = figure(0.4 + 4.6 * math.ceil(len(stages) / COLUMNS))
    columns = min(len(stages), COLUMNS)
    for index, (stage, entries) in enumerate(stages.items()):
        row, column = divmod(index, columns)
        place = (2 * math.ceil(len(stages) / columns), columns, 2 * row * columns + column + 1)
        above = plot.add_subplot(*place)
        below = plot.add_subplot(*place[:2], place[2] + columns, sharex=above)
        _loss_panel(above, entries, log=stage in log_stages)
        _top1_panel(below, entries)
        above.tick_params(labelbottom=False)
        above.set_title(_clip(stage, 28), fontsize=TEXT, fontweight="bold", loc="left", parse_math=False)
        if not column:
            above.set_ylabel("loss (no unit)")
            below.set_ylabel(f"{measure}, %")
    title(plot, _course(stages, measure))
    plot.align_ylabels()
    return plot


def latents(
    path: str | os.PathLike,
    images: np.ndarray,
    latents: np.ndarray,
    class_names_true: Sequence[str],
    class_names_predicted: Sequence[str],
    bytes_latent,
    bytes_jpeg,
    *,
    bits: int = 8,
):
    """Draw images beside their latents.

    Args:
        path: where to write the PNG.
        images: [N, H, W, 3] uint8, N images, six in the report.
        latents: [N, h, w, c] uint8, their latents as they arrive; the first 12 channels are drawn, all on one scale.
        class_names_true: N names.
        class_names_predicted: N names, the student's predictions.
        bytes_latent: bytes of an image's payload; one number, or N.
        bytes_jpeg: bytes of an image as JPEG at quality 95; one number, or N.
        bits: per value of the latents; their common scale is 0 .. 2**bits - 1.

    Raises:
        UserError: the lengths differ, or the file cannot be written.
    """
    count = len(images)
    if not count or {len(latents), len(class_names_true), len(class_names_predicted)} != {count}:
        counts = (
            f"{count} images, {len(latents)} latents, {len(class_names_true)} and {len(class_names_predicted)} names"
        )
        raise UserError(f"cannot draw {counts}; the numbers must be equal")
    sent, jpeg = np.broadcast_to(bytes_latent, (count,)), np.broadcast_to(bytes_jpeg, (count,))
    save(_latents(images, latents, class_names_true, class_names_predicted, sent, jpeg, levels_of(bits)), path)


def _latents(
    images: np.ndarray,
    latents: np.ndarray,
    true: Sequence[str],
    predicted: Sequence[str],
    sent: np.ndarray,
    jpeg: np.ndarray,
    highest: int,
) -> Figure:
    """Return the figure of `latents`; `highest` is the largest value that a latent can have."""
    count = len(images)
    mosaics = [_mosaic(latent) for latent in latents]
    aspect = mosaics[0].shape[1] / mosaics[0].shape[0]
    image = images.shape[2] / images.shape[1]
    pair = image + aspect + 0.12  # width of an image and its maps, in heights of an image
    columns = min(3 if pair < NARROW else 2, count)
    rows = math.ceil(count / columns)
    height = min((WIDTH - 0.9) / (columns * pair), MAX_INCHES)
    plot = figure(0.5 + (height + 0.7) * rows)
    grid = GridSpec(rows, 3 * columns - 1, figure=plot, width_ratios=([image, aspect, 0.12] * columns)[:-1])
    maps, drawn = [], []
    for index in range(count):
        row, column = divmod(index, columns)
        left = plot.add_subplot(grid[row, 3 * column])
        right = plot.add_subplot(grid[row, 3 * column + 1])
        left.imshow(images[index])
        drawn.append(right.imshow(mosaics[index], vmin=0, vmax=highest, cmap="viridis", interpolation="nearest"))
        _captions(left, right, true[index], predicted[index], sent[index], jpeg[index])
        maps += [left, right]
    _value_bar(plot, drawn[0], maps, latents.shape[-1])
    for axes, side in zip(maps, "EW" * count, strict=True):
        axes.set_anchor(side)  # an image and its maps beside each other; a colour bar moves what it belongs to
    same = [str(name) == str(guess) for name, guess in zip(true, predicted, strict=True)]
    title(
        plot,
        f"{sent.mean():,.0f} bytes an image instead of {jpeg.mean():,.0f} as JPEG at quality 95; "
        f"{sum(same)} of {_count(count, 'prediction')} {'is' if sum(same) == 1 else 'are'} correct",
    )
    return plot


def _names(history: Sequence[Mapping]) -> list[str]:
    """Return the stages of a history, in order."""
    return list(dict.fromkeys(entry["stage"] for entry in history))


def _course(stages: Mapping[str, Sequence[Mapping]], measure: str) -> str:
    """Say where the training ends: the last accuracy, and how far it is from the teacher's; or else the loss."""
    ends = {name: values[-1] for name, entries in stages.items() if (values := _series(entries, "top1")[1])}
    if not ends:
        name, entries = list(stages.items())[-1]
        losses = _series(entries, "train_loss")[1]
        if not losses:
            return f"{name}: nothing was measured"
        fall = f"its loss goes from {losses[0]:.3g} to {losses[-1]:.3g}" if len(losses) > 1 else f"loss {losses[0]:.3g}"
        return f"{name}, {_count(len(entries), 'epoch')}: {fall}"
    last = list(ends)[-1]
    result = f"{last} ends at {ends[last]:.1f} % {measure}"
    if last == "teacher" or "teacher" not in ends:
        return f"{result} after {_count(len(stages[last]), 'epoch')}"
    points = round(ends[last] - ends["teacher"], 1)
    if not points:
        return f"{result}, as the teacher does"
    return f"{result}, {abs(points):.1f} points {'above' if points > 0 else 'below'} the teacher"


def _count(many: int, noun: str) -> str:
    """Write a number of things: 1 epoch, 2 epochs."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def _series(entries: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """Return the epochs that have a finite `key`, and its values."""
    points = [(entry["epoch"], float(entry[key])) for entry in entries if entry.get(key) is not None]
    points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _loss_panel(axes: Axes, entries: Sequence[Mapping], *, log: bool):
    """Draw the losses of one stage, and a dotted line where the learning rate drops."""
    drawn = []
    # The second is dashed with hollow markers, so that both of two equal curves are visible.
    first: dict[str, Any] = {"markersize": 4}
    second: dict[str, Any] = {"linestyle": (0, (3, 2)), "markersize": 7, "markerfacecolor": "none"}
    for key, name, colour, marker, look in (
        ("train_loss", "training", BLUE, "o", first),
        ("eval_loss", "evaluation", ORANGE, "s", second),
    ):
        epochs, values = _series(entries, key)
        if values:
            axes.plot(epochs, values, color=colour, marker=marker, linewidth=1.6, label=name, **look)
            drawn += values
    _decorate(axes, entries)
    if log and drawn and min(drawn) > 0:
        axes.set_yscale("log")
        spread = max(drawn) / min(drawn)
        axes.set_ylim(*log_limits(drawn, before=1.25, after=1.25 * spread**0.12))  # the top is room for the legend
        decorate_log_axis(axes.yaxis)
        axes.yaxis.set_major_formatter(FuncFormatter(_short))
    elif drawn and min(drawn) >= 0:
        axes.set_ylim(0, 1.3 * max(drawn) or 1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter(FuncFormatter(_short))
    for index, epoch in enumerate(_rate_drops(entries)):
        name = None if index else "learning rate drops"
        axes.axvline(epoch - 0.5, color=GREY, linestyle=":", linewidth=1, label=name)
    if drawn:
        axes.legend(facecolor="white", edgecolor="none", framealpha=1, fontsize=SMALL, loc="upper right")
    else:
        _write_not_measured(axes)


def _top1_panel(axes: Axes, entries: Sequence[Mapping]):
    """Draw top-1 of one stage, with its last value as a title."""
    epochs, values = _series(entries, "top1")
    _decorate(axes, entries)
    axes.set_xlabel("epoch")
    if not values:
        _write_not_measured(axes)
        return
    axes.plot(epochs, values, color=GREEN, marker="o", markersize=4, linewidth=1.6)
    middle, spread = (max(values) + min(values)) / 2, max(max(values) - min(values), 4.0)
    axes.set_ylim(max(middle - 0.6 * spread, -0.03 * spread), min(middle + 0.6 * spread, 100 + 0.03 * spread))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_title(f"{values[-1]:.1f} %", fontsize=TEXT, loc="right", pad=3, color=ink(GREEN), fontweight="bold")


def _decorate(axes: Axes, entries: Sequence[Mapping]):
    """Give a panel whole-numbered epochs, a light grid and no box."""
    epochs = [entry["epoch"] for entry in entries]
    margin = max(0.05 * (max(epochs) - min(epochs)), 0.5)
    axes.set_xlim(min(epochs) - margin, max(epochs) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    decorate(axes)


def _short(value: float, _position=None) -> str:
    """Write a tick of any size in a few characters: 0.02, 5, 200, 5k, 1M."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return number(value)


def _rate_drops(entries: Sequence[Mapping]) -> list[int]:
    """Return the epochs in which a step-wise learning rate is lower than before; none for a smooth schedule.

    A step has two epochs of one rate before it or after it.
    """
    known = [(entry["epoch"], float(entry["learning_rate"])) for entry in entries if entry.get("learning_rate")]
    drops = []
    for index in range(1, len(known)):
        (_, before), (epoch, rate) = known[index - 1 : index + 1]
        level = [known[index - 2][1] == before] if index > 1 else []
        level += [known[index + 1][1] == rate] if index + 1 < len(known) else []
        if rate < 0.9 * before and any(level):
            drops.append(epoch)
    return drops


def _write_not_measured(axes: Axes):
    axes.set_yticks([])
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=TEXT)


def _mosaic(latent: np.ndarray) -> np.ma.MaskedArray:
    """Arrange the channels of [h, w, c] as a grid of maps, masked in the gaps between them."""
    height, width, channels = latent.shape
    shown = min(channels, MAX_CHANNELS)
    rows = 2 if shown in (2, 4) else min(3, shown)  # the reference's 3, 6, 9 and 12 channels fill three rows
    columns = math.ceil(shown / rows)
    gap = max(1, round(height / 14))
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan, np.float32)
    for channel in range(shown):
        row, column = divmod(channel, columns)
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = latent[:, :, channel]
    return np.ma.masked_invalid(canvas)


def _captions(left: Axes, right: Axes, true: str, predicted: str, sent: float, jpeg: float):
    """Write the class and the prediction above a pair, and the bytes of payload and JPEG below it."""
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    correct = str(true) == str(predicted)
    # A title does not widen its axes, so it may extend above the maps; its second line is for the prediction.
    left.set_title(f"{_clip(true)}\n ", fontsize=TEXT, loc="left", pad=4, fontweight="bold", parse_math=False)
    prediction = left.annotate(
        f"{'✓' if correct else '✗'} predicted {_clip(predicted)}",
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=TEXT,
        color=ink(GREEN if correct else VERMILLION),
        parse_math=False,  # a class may have a $ in its name
    )
    prediction.set_in_layout(False)
    change = f"{100 * (sent / jpeg - 1):+.0f} %".replace("-", "−")
    left.set_xlabel(
        f"{sent:,.0f} bytes; JPEG q95: {jpeg:,.0f} ({change})", fontsize=SMALL, color=GREY, loc="left", labelpad=3
    )


def _clip(name: str, limit: int = 26) -> str:
    name = str(name)
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"


def _value_bar(figure: Figure, mosaic: AxesImage, maps: list[Axes], channels: int):
    """Add the colour scale that all maps share."""
    top = mosaic.norm.vmax or 1
    ticks = [0, 64, 128, 192, 255] if top == 255 else [0, top]
    bar = figure.colorbar(mosaic, ax=maps, fraction=0.025, pad=0.015, aspect=40, ticks=ticks)
    more = f", first {MAX_CHANNELS} of {channels} channels" if channels > MAX_CHANNELS else ""
    bar.set_label(f"value that arrives (no unit){more}", fontsize=SMALL, color=GREY)
    bar.ax.tick_params(labelsize=SMALL, color=GREY)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
