"""Folders of small images for the tests of this room."""

import io
import pathlib

import numpy as np
from PIL import Image

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """A blurred random image, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: np.ndarray | Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def make_folder(root: pathlib.Path, *, classes=("ant", "bee"), train: int = 6, val: int = 5) -> pathlib.Path:
    """root/{train,val}/CLASS/N.jpg (every third a PNG), each image different and of its own size."""
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                image = noise(40 + 3 * index, 50 + 2 * label, seed=1000 * label + index + 100 * (split == "val"))
                kind, suffix = ("PNG", "png") if index % 3 == 2 else ("JPEG", "JPEG" if index % 3 else "jpg")
                (folder / f"{index:02d}.{suffix}").write_bytes(encode(image, kind))
    return root


def truncate(path: pathlib.Path) -> None:
    """Cuts a file in half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
