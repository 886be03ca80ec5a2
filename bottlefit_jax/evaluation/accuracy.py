"""Top-1 and top-5 as sums over batches: counted on the device, divided once at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from bottlefit_jax.errors import UserError


def correct_counts(
    logits, labels, mask, *, class_indices: Sequence[int] | None = None, by_class: bool = False
) -> dict[str, jax.Array]:
    """Count the images of one batch whose label is the best, or among the five best.

    Equal logits are ranked by class number, lower first, so that a constant output does not count as correct and the
    result is the same on every device. A label whose logit is NaN counts as wrong. With fewer than five classes,
    top-5 is the same as "any of them".

    Args:
        logits: [B, K], any float dtype.
        labels: [B], integers 0 .. K-1, or 0 .. len(class_indices)-1 where that is given.
        mask: [B], bool; False for rows that only fill the batch, whatever they hold.
        class_indices: the columns of `logits` that are the dataset's classes, in the dataset's order, for a teacher
            that has more classes than the dataset. Only these are ranked.
        by_class: count the correct images of each class too.

    Returns:
        `{"top1", "top5", "count"}`, int32 scalars, and "by_class", int32 [K] or [len(class_indices)], if that is asked
        for; add them up over batches.
    """
    logits = jnp.asarray(logits).astype(jnp.float32)
    if class_indices is not None:
        logits = logits[:, jnp.asarray(class_indices, dtype=jnp.int32)]  # [B, len(class_indices)]
    labels = jnp.asarray(labels).astype(jnp.int32)[:, None]
    mask = jnp.asarray(mask).astype(bool)
    truth = jnp.take_along_axis(logits, labels, axis=1, mode="fill", fill_value=jnp.nan)
    columns = jnp.arange(logits.shape[1], dtype=jnp.int32)[None]  # [1, K]
    ahead = ~(logits <= truth) | ((logits == truth) & (columns < labels))
    rank = jnp.sum(ahead, axis=1, dtype=jnp.int32)
    valid = mask & ~jnp.isnan(truth[:, 0])
    first = valid & (rank < 1)
    counts = {
        "top1": jnp.sum(first, dtype=jnp.int32),
        "top5": jnp.sum(valid & (rank < 5), dtype=jnp.int32),
        "count": jnp.sum(mask, dtype=jnp.int32),
    }
    if by_class:
        counts["by_class"] = jnp.sum((columns == labels) & first[:, None], axis=0, dtype=jnp.int32)
    return counts


def percentages(counts: Mapping) -> dict[str, float]:
    """Turn summed counts into `{"top1", "top5"}` in percent.

    Args:
        counts: `{"top1", "top5", "count"}`, sums of `correct_counts`.

    Raises:
        UserError: no images were counted.
    """
    count = int(counts["count"])
    if count < 1:
        raise UserError(f"{count} images were evaluated; an accuracy needs at least 1")
    return {name: 100.0 * int(counts[name]) / count for name in ("top1", "top5")}


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy, in percent, by Wilson's score.

    It is valid for few images and near 100 %, where the normal approximation is not.

    Args:
        correct: number of images that were classified correctly.
        count: number of images.

    Raises:
        UserError: no images, or more correct ones than there are.
    """
    if not 0 <= correct <= count or not count:
        raise UserError(f"{correct} of {count} images are correct; an interval needs at least 1 image")
    z = 1.959963985  # the normal distribution has 95 % of its mass within so many standard deviations
    share = correct / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(100.0 * (middle - half), 0.0), min(100.0 * (middle + half), 100.0)
