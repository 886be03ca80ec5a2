"""What rates.png shows: the rates of a bundle, with the same images as JPEG and WebP files beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import features

from bottlefit_jax.bundle import RAW
from bottlefit_jax.evaluation.alternatives import FILES, FORMATS
from bottlefit_jax.evaluation.image_bytes import encode_images
from bottlefit_jax.evaluation.rate_plot import ImageFiles, RateCurve
from export.ladder import Ladder

QUALITY, IMAGES = 50, 100  # of files whose accuracy is not known
LOWEST = 25.0  # points of top-1 below the best that are drawn


def image_files(report: dict[str, Any], images: np.ndarray) -> list[ImageFiles]:
    """Return the images as files: what the run's report has of them, else their sizes alone.

    Args:
        report: the content of report.json; it may be empty.
        images: uint8 [N, H, W, 3], of the evaluation.
    """
    wanted = {"method", "setting", "bytes", "top1", "images"}  # older versions wrote other reports
    rows = [row for row in report.get("alternatives", []) if wanted <= row.keys() and row["method"] in FILES]
    if rows:
        return [
            ImageFiles(
                method=row["method"],
                setting=row["setting"],
                sent=row["bytes"],
                top1=row["top1"],
                images=row["images"],
            )
            for row in rows
        ]
    chosen = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    sizes = {
        name: np.mean([len(file) for file in encode_images(chosen, image_format=name, quality=QUALITY)])
        for name, feature in FORMATS.items()
        if features.check(feature)
    }
    return [
        ImageFiles(method=name.lower(), setting=f"quality {QUALITY}", sent=float(size), top1=None, images=len(chosen))
        for name, size in sizes.items()
    ]


def rate_curve(
    ladder: Ladder,
    *,
    raw: tuple[float, float],
    teacher_top1: float | None,
    files: Sequence[ImageFiles],
    dataset: str,
    images: int,
    agreement: bool = False,
) -> RateCurve:
    """Return what to draw.

    Args:
        ladder: the rates.
        raw: bytes and top-1 of raw latents.
        teacher_top1: percent, of the teacher on the same images; None where it is not known.
        files: the images as files.
        dataset: name of the evaluation images.
        images: how many they are.
        agreement: whether the values are agreement with the teacher, because the images have no labels.
    """
    rates = [(RAW, *raw), *((point.rate.id, point.bytes_mean, point.top1) for point in ladder.points)]
    lowest = max(top1 for _, _, top1 in rates) - LOWEST
    return RateCurve(
        dataset=dataset,
        images=images,
        rates=sorted(rates, key=lambda rate: -rate[1]),
        default=ladder.default,
        teacher_top1=teacher_top1,
        files=files,
        tried=[(point.bytes_mean, point.top1) for point in ladder.candidates if point.top1 >= lowest],
        agreement=agreement,
    )
