"""Random streams depend on the run's seed and their name, and on nothing else."""

import jax
import numpy as np

from bottlefit_jax.experiment.streams import stream_key, stream_seed


def test_a_streams_seed_is_the_same_on_every_machine():
    assert stream_seed(0, "stage1 data") == 4133385530
    assert stream_seed(2**30, "stage1 data") == 1656935384


def test_streams_of_other_names_and_seeds_differ():
    names = [f"{stage} {use}" for stage in ("teacher", "stage1", "stage2") for use in ("data", "steps", "weights")]
    seeds = {stream_seed(seed, name) for seed in (*range(10), 2**30) for name in names}
    assert len(seeds) == 11 * len(names)
    assert all(0 <= seed < 2**32 for seed in seeds)
    draws = {float(jax.random.uniform(stream_key(seed, name))) for seed in range(3) for name in names}
    assert len(draws) == 3 * len(names)


def test_equal_seeds_and_names_give_equal_keys():
    one, other = (jax.random.key_data(stream_key(7, "stage2 steps")) for _ in range(2))
    np.testing.assert_array_equal(one, other)
