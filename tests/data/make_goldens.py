"""Writes torchvision.npz: torchvision's results for generated images, so that the tests need no torch.

    python tests/data/make_goldens.py      # torch 2.14.1, torchvision 0.29.1, pillow 13.0.0

Images come from `image` below, in both places. The crops are torchvision's own `get_params`, with torch's random
numbers replaced by those of a NumPy generator, drawn in the same order.
"""

import math
import os
from unittest import mock

import numpy as np

EVALUATION = ((97, 131, 64, 73), (131, 97, 64, 73), (300, 40, 32, 37), (50, 61, 64, 73), (64, 64, 48, 48))
BOXES = ((10, 20, 80, 100), (0, 0, 97, 131), (33, 5, 20, 31), (40, 60, 57, 71))  # of an image of 97 x 131
DRAWS = ((97, 131), (375, 500), (30, 400), (400, 30), (1, 1))
SEEDS = 60
SCALE = (0.08, 1.0)
SIZE = 56


def random_image(height: int, width: int) -> np.ndarray:
    """Smooth and sharp things together: uint8 [height, width, 3]."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    waves = 90 * np.sin(x / (3.0 + c)) * np.cos(y / 7.0) + 50 * np.sin((x * y) / 90.0)
    checks = 60 * (((x // 9) + (y // 11) + c) % 2)
    return np.clip(100 + waves + checks, 0, 255).astype(np.uint8)


class _Drawn(float):
    """Stands for a tensor of one element."""

    def item(self) -> float:
        return float(self)


class _Torch:
    """Stands for torch inside torchvision's get_params; draws from NumPy."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def log(self, values):
        return [math.log(value) for value in values]

    def tensor(self, values):
        return values

    def exp(self, value):
        return _Drawn(math.exp(value))

    def empty(self, count):
        return self

    def uniform_(self, low, high):
        return _Drawn(self.rng.uniform(low, high))

    def randint(self, low, high, size):
        return _Drawn(self.rng.integers(high - low) + low)


def main() -> None:
    from PIL import Image
    from torchvision import transforms
    from torchvision.transforms import functional

    goldens = {}
    for index, (height, width, size, short_side) in enumerate(EVALUATION):
        evaluate = transforms.Compose([transforms.Resize(short_side), transforms.CenterCrop(size)])
        goldens[f"evaluation{index}"] = np.asarray(evaluate(Image.fromarray(random_image(height, width))))
    for index, box in enumerate(BOXES):
        crop = functional.resized_crop(Image.fromarray(random_image(97, 131)), *box, [SIZE, SIZE])
        goldens[f"crop{index}"] = np.asarray(crop)
    for index, (height, width) in enumerate(DRAWS):
        image, boxes = Image.fromarray(random_image(height, width)), []
        for seed in range(SEEDS):
            with mock.patch.object(transforms.transforms, "torch", _Torch(np.random.default_rng(seed))):
                box = transforms.RandomResizedCrop.get_params(image, list(SCALE), [3 / 4, 4 / 3])
            boxes.append([int(value) for value in box])
        goldens[f"boxes{index}"] = np.asarray(boxes, np.int32)
    path = os.path.join(os.path.dirname(__file__), "torchvision.npz")
    np.savez_compressed(path, **goldens)
    print(path, os.path.getsize(path))


if __name__ == "__main__":
    main()
