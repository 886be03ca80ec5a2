"""Draws the rates of a bundle: bytes against top-1, with the same images as JPEG and WebP files beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import features

from bottlefit_jax.evaluation.axes import decorate_log_axis
from bottlefit_jax.evaluation.colours import BLUE, GREEN, GREY, ORANGE, RED
from bottlefit_jax.evaluation.image_bytes import encode_images
from bottlefit_jax.evaluation.plots import figure, save
from export.ladder import Ladder

FORMATS = {"jpeg": ("JPEG", "s", ORANGE), "webp": ("WebP", "^", RED)}  # label, marker, colour
QUALITY, IMAGES = 50, 100  # of files whose accuracy is not known
ROOM = 1.25  # right of the last point, as a factor of bytes
APART = 1.12  # factor of bytes between files that both have a name
LOWEST = 25.0  # points of top-1 below the best that are drawn


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """Images as files of one format and quality.

    Attributes:
        method: jpeg or webp.
        quality: as the report writes it, such as `quality 50`.
        bytes: of a file, mean.
        top1: percent, of the teacher on them; None where it was not measured.
        images: how many; None where they are those of the rates.
    """

    method: str
    quality: str
    bytes: float
    top1: float | None
    images: int | None = None


def image_files(report: dict[str, Any], images: np.ndarray) -> list[ImageFile]:
    """Return the images as files: what the run's report has of them, else their sizes alone.

    Args:
        report: the content of report.json; it may be empty.
        images: uint8 [N, H, W, 3], of the evaluation.
    """
    wanted = {"method", "setting", "bytes", "top1", "images"}  # older versions wrote other reports
    rows = [row for row in report.get("alternatives", []) if wanted <= row.keys() and row["method"] in FORMATS]
    if rows:
        counts = [None if row["images"] == len(images) else row["images"] for row in rows]
        return [
            ImageFile(row["method"], row["setting"], row["bytes"], row["top1"], count)
            for row, count in zip(rows, counts, strict=True)
        ]
    chosen = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    names = [name for name, feature in (("JPEG", "jpg"), ("WEBP", "webp")) if features.check(feature)]
    sizes = {
        name: np.mean([len(file) for file in encode_images(chosen, image_format=name, quality=QUALITY)])
        for name in names
    }
    return [ImageFile(name.lower(), f"quality {QUALITY}", float(size), None) for name, size in sizes.items()]


def draw_rates(
    path: Path,
    ladder: Ladder,
    *,
    raw: tuple[float, float],
    float_top1: float,
    teacher_top1: float | None,
    files: Sequence[ImageFile],
    agreement: bool = False,
) -> None:
    """Draw rates.png.

    Args:
        path: of the PNG.
        ladder: the rates.
        raw: bytes and top-1 of raw latents.
        float_top1: percent, of the student without a quantiser.
        teacher_top1: percent, of the teacher on the same images; None where it is not known.
        files: the images as files.
        agreement: whether the values are agreement with the teacher, because the images have no labels.

    Raises:
        UserError: the file cannot be written.
    """
    plot = figure(8.4, 4.8)
    axes = plot.subplots()
    tried = sorted((point.bytes_mean, point.top1) for point in ladder.candidates)
    axes.plot(*zip(*tried, strict=True), color=BLUE, alpha=0.35, linewidth=1.2, marker=".", markersize=4)
    axes.plot(
        [point.bytes_mean for point in ladder.points],
        [point.top1 for point in ladder.points],
        color=BLUE,
        marker="o",
        markersize=7,
        linestyle="none",
        label="rates of this bundle",
    )
    default = ladder.default_point
    axes.plot(default.bytes_mean, default.top1, "o", color=BLUE, markersize=13, markerfacecolor="none", label="default")
    axes.plot(*raw, "D", color=GREY, markersize=7, label="raw latent")
    axes.axhline(float_top1, color=GREEN, linestyle="--", linewidth=1.2, label="student, not quantised")
    if teacher_top1 is not None:
        axes.axhline(teacher_top1, color=GREY, linestyle=":", linewidth=1.2, label="teacher")
    _draw_files(axes, files)
    _limit(axes, ladder, raw, [float_top1] if teacher_top1 is None else [float_top1, teacher_top1], files)
    _name(axes, ladder)
    axes.set_xlabel("bytes of an image, mean")
    axes.set_ylabel("agreement with the teacher, %" if agreement else "top-1, %")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(plot, path)


def _draw_files(axes: Axes, files: Sequence[ImageFile]) -> None:
    for method, (label, marker, colour) in FORMATS.items():
        rows = [row for row in files if row.method == method]
        for row in (row for row in rows if row.top1 is None):
            axes.axvline(row.bytes, color=colour, linestyle=":", linewidth=1.2, label=f"{label}, {row.quality}")
        measured = sorted((row.bytes, row.top1, row.quality) for row in rows if row.top1 is not None)
        if measured:
            sizes, values, _ = zip(*measured, strict=True)
            count = f", {rows[0].images:,} images" if rows[0].images else ""
            axes.plot(
                sizes,
                values,
                color=colour,
                marker=marker,
                markersize=6,
                linewidth=1,
                label=f"teacher on {label}{count}",
            )
            named = 0.0
            for size, value, quality in measured:
                if size > APART * named:
                    _write(axes, quality.replace("quality ", "q"), (size, value), (6, -10), colour)
                    named = size


def _limit(
    axes: Axes, ladder: Ladder, raw: tuple[float, float], lines: Sequence[float], files: Sequence[ImageFile]
) -> None:
    """Show every rate and file that is not far below the others, on a logarithmic axis of bytes."""
    points = [(point.bytes_mean, point.top1) for point in ladder.points] + [raw]
    points += [(row.bytes, row.top1) for row in files if row.top1 is not None]
    sizes = [size for size, _ in points] + [row.bytes for row in files]
    values = [value for _, value in points] + list(lines)
    lowest = max(min(values), max(values) - LOWEST)
    margin = max(0.08 * (max(values) - lowest), 0.4)
    axes.set_ylim(lowest - margin, max(values) + 2.5 * margin)  # the top is room for names
    axes.set_xscale("log")
    least, most = min(sizes), max(sizes)
    axes.set_xlim(least / (most / least) ** 0.18, most * ROOM)  # the left is room for a name
    decorate_log_axis(axes, size=8)


def _name(axes: Axes, ladder: Ladder) -> None:
    """Write the id of each rate to its upper left, where the curve is not; slanted, so that names do not overlap."""
    for point in ladder.points:
        text = f"{point.rate.id} ({point.bytes_mean:,.0f})"
        _write(axes, text, (point.bytes_mean, point.top1), (-4, 6), BLUE, slanted=True)


def _write(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], colour: str, *, slanted: bool = False
) -> None:
    """Write a name beside a point."""
    axes.annotate(
        text,
        place,
        xytext=offset,
        textcoords="offset points",
        fontsize=7.5,
        color=colour,
        rotation=-35 if slanted else 0,
        rotation_mode="anchor",
        ha="right" if slanted else "left",
        annotation_clip=True,
    )
