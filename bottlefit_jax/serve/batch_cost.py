"""How long a tail takes for a batch: so many seconds whatever it holds, and so many for each image.

cost = BatchCost(max_batch=32)
cost.learn(0.075, images=2)
cost.seconds(10)

A line through the batches that ran, in which the later ones weigh more. On a GPU, and wherever a batch pays, the first
image costs far more than each further one: an average of seconds for an image, learned from small batches, would
refuse requests that a large one answers in time.
"""

import math

WEIGHT = 0.1  # of the last batch
SPREAD = 0.005  # of the squared mean of images: with less variance there is no slope to be seen


class BatchCost:
    """The line, and the means that it is drawn through."""

    def __init__(self, max_batch: int):
        """Know nothing: every batch seems to take no time.

        Args:
            max_batch: images that the tail runs at once.
        """
        self._max_batch = max_batch
        self._means: list[float] = []  # images, seconds, images², images · seconds
        self._batch = self._image = 0.0

    def seconds(self, images: int) -> float:
        """Return how long the tail will take for so many images, in as many batches as they need."""
        return math.ceil(images / self._max_batch) * self._batch + images * self._image

    def learn(self, seconds: float, images: int) -> None:
        """Take in how long a batch took."""
        new = [float(images), seconds, float(images * images), images * seconds]
        known = self._means or new
        self._means = [mean + WEIGHT * (value - mean) for mean, value in zip(known, new, strict=True)]
        count, time, squares, products = self._means
        variance, slope = squares - count * count, time / count  # one size of batch: as if each image took its share
        if variance > SPREAD * count * count:
            slope = min(max((products - count * time) / variance, 0.0), slope)
        self._batch, self._image = time - slope * count, slope
