"""Triton's classification extension: the likeliest classes of an output as texts, `value:index` or `value:index:label`.

A value has six digits after the point, as C's `%f` writes it. Of equal values the lower index comes first; Triton
leaves their order open.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bottlefit_jax.protocol.byte_tensors import pack, unpack
from bottlefit_jax.protocol.names import OUTPUT

_PROBABILITY = re.compile(rb"([01]\.[0-9]{1,12}):([0-9]{1,9})(?::.*)?", re.DOTALL)


class Output(NamedTuple):
    """An output that a request asks for.

    Attributes:
        name: of the tensor.
        classes: how many of the likeliest classes it shall have, as texts; 0 asks for the numbers of all.
    """

    name: str
    classes: int = 0


DEFAULT = (Output(OUTPUT),)  # what a request without outputs asks for


def write(values: np.ndarray, count: int, labels: Sequence[str]) -> bytes:
    """Return the raw contents of an output of texts.

    Args:
        values: [b, classes] float32.
        count: how many of the classes, 1 to all.
        labels: of the classes; empty where they are not known.

    Returns:
        The contents of BYTES [b, count], the likeliest class of an image first.
    """
    return pack(
        f"{row[index]:f}:{index}{f':{labels[index]}' if labels else ''}".encode()
        for row in values
        for index in likeliest(row, count).tolist()
    )


def likeliest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` largest of [classes] values, the largest first."""
    last = len(values) - count
    candidates = np.flatnonzero(
        values >= np.partition(values, last)[last]
    )  # sorting all would take several times longer
    if len(candidates) < count:  # NaN
        candidates = np.arange(len(values))
    return candidates[np.argsort(-values[candidates], kind="stable")[:count]]


def read(raw: bytes, count: int, classes: int) -> list[tuple[int, float]]:
    """Return the classes and probabilities of one image, the likeliest first. The labels are not read.

    Args:
        raw: any bytes.
        count: how many classes it must have.
        classes: that the model has.

    Raises:
        ValueError: the bytes are not so many different classes with probabilities in descending order.
    """
    found: list[tuple[int, float]] = []
    for text in unpack(raw, count):
        match = _PROBABILITY.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:40]!r} is not probability:index or probability:index:label")
        probability, index = float(match[1]), int(match[2])
        if probability > 1 or index >= classes:
            raise ValueError(f"{text[:40]!r} is not a probability up to 1 and an index below {classes:,}")
        found.append((index, probability))
    if len({index for index, _ in found}) < count:
        raise ValueError("a class is there twice")
    if any(next_one > one for (_, one), (_, next_one) in itertools.pairwise(found)):
        raise ValueError("the probabilities do not descend")
    return found
