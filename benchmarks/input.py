"""Training images per second and core: our loader against torchvision's ImageFolder and DataLoader.

    pip install 'bottlefit-jax[bench]'
    python -m benchmarks.input                      # 500 x 375 JPEGs made from scikit-learn's two photographs
    python -m benchmarks.input --data ROOT          # the images of ROOT/train/CLASS/*.jpg as they are
    python -m benchmarks.input --data ROOT --enlarge  # the same, enlarged to 500 x 375

Both sides read files, decode them, draw RandomResizedCrop and flip to 224 px, and stack uint8 batches of 64, in one
thread of this process (workers=0). torchvision has its fastest honest settings: PIL images, `PILToTensor`, no
normalisation (ours is done on the device). They run in turns, a batch each; reported is the median over the
batches of images per second of the process's CPU time, which other load on the machine disturbs little.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from bottlefit_jax.data import open_source, train_batches
from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import local_path

BATCH = 64
SIZE = 224
WIDTH, HEIGHT = 500, 375  # the mean ImageNet image
QUALITY = 90
IMAGES, NAMES = 256, 16


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it as a table and a line of JSON; return the exit code."""
    parser = argparse.ArgumentParser(description="Input pipeline: ours against torchvision, per core.")
    parser.add_argument("--data", default="", help="a folder with train/CLASS/*.jpg; default: generated images")
    parser.add_argument("--enlarge", action="store_true", help=f"enlarge the images of --data to {WIDTH} x {HEIGHT}")
    parser.add_argument("--batches", type=int, default=24, help=f"batches of {BATCH} images on each side")
    options = parser.parse_args(argv)
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("this comparison needs torch and torchvision: pip install 'bottlefit-jax[bench]'", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory() as scratch:
            given = str(local_path(options.data)) if options.data else ""
            root = make_images(scratch, given) if options.enlarge or not given else given
            report(compare(root, options.batches))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def make_images(scratch: str, data: str) -> str:
    """Write JPEGs of 500 x 375 under `scratch`/train: crops of two photographs, or the images of `data` enlarged.

    Every file has further names, so that the epoch has a realistic length (shuffling a tiny one is slower).
    """
    rng = np.random.default_rng(0)
    train, val = (os.path.join(scratch, split, "photo") for split in ("train", "val"))
    os.makedirs(train)
    os.makedirs(val)
    for index, image in enumerate(itertools.islice(_originals(data, rng), IMAGES)):
        path = os.path.join(train, f"{index:04d}.jpg")
        cv2.imwrite(path, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        for name in range(1, NAMES):
            os.link(path, os.path.join(train, f"{index:04d}-{name}.jpg"))
    os.link(os.path.join(train, "0000.jpg"), os.path.join(val, "0000.jpg"))
    return scratch


def _originals(data: str, rng: np.random.Generator) -> Iterator[np.ndarray]:
    if data:
        source = open_source("folder", split="train", root=data)
        for index in rng.permutation(len(source)):
            image = np.asarray(source[int(index)]["image"])
            yield cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    else:
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images  # two of 640 x 427
        for index in itertools.count():
            photograph = photographs[index % 2]
            top, left = rng.integers(427 - HEIGHT + 1), rng.integers(640 - WIDTH + 1)
            yield np.ascontiguousarray(photograph[top : top + HEIGHT, left : left + WIDTH])


def compare(root: str, batches: int) -> dict[str, float]:
    """Images per second of CPU time, medians of `batches` batches taken in turns.

    Returns:
        {'ours', 'torchvision', 'ratio'}.
    """
    sides = {"ours": _ours(root), "torchvision": _torchvision(root)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for name in sides:  # warm up: caches, lazy imports
        next(sides[name])
    for _ in range(batches):
        for name, iterator in sides.items():
            rates[name].append(BATCH / cpu_seconds(lambda iterator=iterator: next(iterator)))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {**medians, "ratio": medians["ours"] / medians["torchvision"]}


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that this process spends in `work()`."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _ours(root: str) -> Iterator[object]:
    source = open_source("folder", split="train", root=root)
    return train_batches(source, batch_size=BATCH, image_size=SIZE, seed=0, workers=0)


def _torchvision(root: str) -> Iterator[object]:
    import torch  # pyright: ignore[reportMissingImports]
    from torchvision import datasets, transforms  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    dataset = datasets.ImageFolder(os.path.join(root, "train"), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, drop_last=True)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def report(result: dict[str, float]) -> None:
    """Print the result for a person, then as one line of JSON."""
    print(f"{'pipeline':<12} images/s per core, {SIZE} px")
    for name in ("torchvision", "ours"):
        print(f"{name:<12} {result[name]:8.0f}")
    print(f"{'ratio':<12} {result['ratio']:8.2f}")
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    sys.exit(main())
