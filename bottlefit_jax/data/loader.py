"""Makes batches of a source by Grain, with threads or processes; the position is the step number alone.

A batch is a function of (source, seed, batch_size, step): `MapDataset` computes it by index, including the random
draws. So a checkpoint needs only the step, and the number of workers, threads or hosts can change between two runs.
The hosts' shards are consecutive rows of the single host's batch, in the order of their index.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from bottlefit_jax.data import augment
from bottlefit_jax.data.source import Source
from bottlefit_jax.data.workers import supervised
from bottlefit_jax.errors import UserError

Batch = dict[str, np.ndarray]

WORKER_TYPES = ("thread", "process")
_BATCHES_AHEAD = 2  # per worker
_GOOD = -1


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Return the number of whole batches in an epoch; the rest of the shuffled epoch is dropped.

    Args:
        source: the images.
        batch_size: images per step over all shards.

    Raises:
        UserError: the source has fewer images than one batch.
    """
    if not 0 < batch_size <= len(source):
        raise UserError(f"batch_size {batch_size} must be from 1 to the {len(source)} images of {_title(source)}")
    return len(source) // batch_size


def train_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    start_step: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 2,
    worker_type: str = "thread",
    crop_scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
) -> Iterator[Batch]:
    """Make endless augmented batches; each epoch has another order.

    Args:
        source: the images.
        batch_size: images per step over all shards.
        image_size: side of the square images, pixels.
        seed: of the order and the augmentation.
        start_step: the step of the first batch; batches are bit-identical to those of a run from step 0.
        shard_index: this host among the hosts; each decodes only its own images.
        shard_count: the number of hosts.
        workers: threads or processes; 0 works in the caller's thread.
        worker_type: 'thread' (decoding and resizing release Python's lock) or 'process' (spawned: a script needs its
            `if __name__ == '__main__'` guard; batches go through /dev/shm, which a container may have to enlarge).
        crop_scale: smallest and largest share of the image's area in a crop; (1, 1) with square images is no crop.
        flip: mirror half of the images.

    Returns:
        Iterator of {'image': uint8 [b, image_size, image_size, 3], 'label': int32 [b]}, b = batch_size / shard_count.
        It has `close()`.

    Raises:
        UserError: an argument is invalid (now), or an image cannot be decoded (from the iterator, at its batch).
    """
    steps = steps_per_epoch(source, batch_size)
    _check_arguments(batch_size, image_size, shard_index, shard_count, workers, worker_type)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed} must be from 0 to 2**32 - 1")
    if start_step < 0:
        raise UserError(f"start_step {start_step} must not be negative")
    if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
        raise UserError(f"crop_scale {tuple(crop_scale)} must be two shares of the area, 0 < smallest <= largest <= 1")
    make = _TrainImage(source, image_size, (float(crop_scale[0]), float(crop_scale[1])), flip)
    dataset = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    dataset = dataset[: steps * batch_size].repeat().random_map(make)
    dataset = dataset.batch(batch_size // shard_count, drop_remainder=True)[shard_index::shard_count][start_step:]
    return _iterate(source, dataset, workers, worker_type)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    resize: int | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 2,
    worker_type: str = "thread",
    limit: int | None = None,
) -> Iterator[Batch]:
    """Make batches of every image once, in order, resized and centre-cropped; or of some images, evenly spread.

    Args:
        source: the images.
        batch_size: images per step over all shards.
        image_size: side of the square images, pixels.
        resize: the short side before the crop, pixels; default 256 / 224 of `image_size`.
        shard_index: as in `train_batches`.
        shard_count: as in `train_batches`.
        workers: as in `train_batches`.
        worker_type: as in `train_batches`.
        limit: the number of images, evenly spread, since sources are sorted by class; None for all.

    Returns:
        Iterator of {'image': uint8 [b, image_size, image_size, 3], 'label': int32 [b], 'mask': bool [b]}. Rows where
        the mask is False are zeros: past the end, or a skipped image. Every shard yields the same number of batches.

    Raises:
        UserError: as `train_batches`.
    """
    _check_arguments(batch_size, image_size, shard_index, shard_count, workers, worker_type)
    if limit is not None and limit < 1:
        raise UserError(f"limit {limit} must be at least 1 image, or None for all")
    short_side = augment.default_resize(image_size) if resize is None else resize
    augment.check_eval_sizes(image_size, short_side)
    chosen = spread(len(source), limit)
    make = _EvalImage(source, image_size, short_side, chosen)
    dataset = grain.MapDataset.range(math.ceil(len(chosen) / batch_size) * batch_size).map(make)
    dataset = dataset.batch(batch_size // shard_count)[shard_index::shard_count]
    return _iterate(source, dataset, workers, worker_type)


def spread(length: int, limit: int | None) -> range | list[int]:
    """Return the indices of the images that an evaluation with this limit takes, evenly spread.

    Args:
        length: the number of images.
        limit: the number to take; None for all.
    """
    if limit is None or limit >= length:
        return range(length)
    return [index * length // limit for index in range(limit)]


class _TrainImage(grain.transforms.RandomMap):
    """Index -> augmented image. The next good image replaces a bad one, if the source skips bad images."""

    def __init__(self, source: Source, size: int, scale: tuple[float, float], flip: bool):
        self._source, self._size, self._scale, self._flip = source, size, scale, flip

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the image at index `element`, cropped by `rng`."""
        source, bad = self._source, _GOOD
        start = rng.bit_generator.state if source.on_bad_image == "skip" else None
        for offset in range(len(source)):
            index = (element + offset) % len(source)
            try:
                if not source.is_bad(index):
                    image, label = self._augmented(index, rng)
                    return {"image": image, "label": np.int32(label), "bad": np.int64(bad)}
            except UserError:
                if start is None:
                    raise
                rng.bit_generator.state = start  # the next image has the same crop, also once the bad one is known
            bad = element
        raise UserError(f"none of the {len(source)} images of {_title(source)} can be decoded")

    def _augmented(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        example: dict[str, Any] = self._source[index]
        options = {"size": self._size, "scale": self._scale, "flip": self._flip}
        return augment.random_resized_crop(example["image"], rng, **options), example["label"]


class _EvalImage(grain.transforms.Map):
    """Index -> image for evaluation; zeros with a False mask past the end and for a skipped image."""

    def __init__(self, source: Source, size: int, short_side: int, chosen: Sequence[int]):
        self._source, self._size, self._short_side, self._chosen = source, size, short_side, chosen

    def map(self, element: int) -> dict[str, Any]:
        """Return the image at index `element` of those chosen."""
        index = self._chosen[element] if element < len(self._chosen) else _GOOD
        example = None if index == _GOOD else _read(self._source, index)
        bad = index
        if example is None:
            image, label = np.zeros((self._size, self._size, 3), np.uint8), 0
        else:
            image = augment.resize_center_crop(example["image"], size=self._size, short_side=self._short_side)
            bad, label = _GOOD, example["label"]
        mask = np.bool_(example is not None)
        return {"image": image, "label": np.int32(label), "mask": mask, "bad": np.int64(bad)}


def _read(source: Source, index: int) -> dict[str, Any] | None:
    """Return the decoded image; None for a bad image of a source that skips them."""
    if source.is_bad(index):
        return None
    try:
        return source[index]
    except UserError:
        if source.on_bad_image != "skip":
            raise
        return None


def _iterate(source: Source, dataset: grain.MapDataset, workers: int, worker_type: str) -> Iterator[Batch]:
    """Iterate over a dataset, and mark in the caller's source the bad images that the workers' copies of it met."""
    threads = workers if worker_type == "thread" else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_BATCHES_AHEAD * threads)
    batches = dataset.to_iter_dataset(options)
    if worker_type == "process" and workers:
        if not flags.FLAGS.is_parsed():  # Grain's processes read absl flags; a caller without absl has the defaults
            flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_BATCHES_AHEAD)
        batches = batches.mp_prefetch(processes)
    iterator = iter(batches)

    def generate() -> Iterator[Batch]:
        try:
            for batch in supervised(iterator) if worker_type == "process" and workers else iterator:
                for index in batch.pop("bad"):
                    if index != _GOOD:
                        source.mark_bad(int(index))
                yield {key: np.asarray(value) for key, value in batch.items()}  # not Grain's shared-memory subclass
        finally:
            iterator.close()

    return generate()


def _check_arguments(
    batch_size: int, image_size: int, shard_index: int, shard_count: int, workers: int, worker_type: str
) -> None:
    if worker_type not in WORKER_TYPES:
        raise UserError(f"worker_type {worker_type!r} is unknown; it must be 'thread' or 'process'")
    if workers < 0:
        raise UserError(f"workers {workers} must not be negative")
    if batch_size < 1 or image_size < 1:
        raise UserError(f"batch_size {batch_size} and image_size {image_size} must be at least 1")
    if not 0 <= shard_index < shard_count:
        raise UserError(f"shard_index {shard_index} must be from 0 to shard_count - 1 = {shard_count - 1}")
    if batch_size % shard_count:
        raise UserError(f"batch_size {batch_size} is not divisible by the {shard_count} shards")


def _title(source: Source) -> str:
    return f"{source.name}/{source.split}"
