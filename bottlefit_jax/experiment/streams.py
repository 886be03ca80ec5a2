"""Random streams of a run: one for each use, from the run's seed and the use's name.

A stream depends on nothing else, so a new stage, or another order of stages, does not change the others' numbers.
"""

import hashlib

import jax
import numpy as np


def stream_seed(seed: int, name: str) -> int:
    """Return the seed of one use, from 0 to 2**32 - 1, the same on every machine.

    Args:
        seed: of the run.
        name: of the use, such as "stage1 data".
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def stream_key(seed: int, name: str) -> jax.Array:
    """Return the random key of one use.

    Args:
        seed: of the run.
        name: of the use, such as "stage1 steps".
    """
    return jax.random.fold_in(jax.random.key(seed), np.uint32(stream_seed(seed, name)))
