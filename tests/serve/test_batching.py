"""The batcher: which requests run together, and which ones do not run."""

import math
import threading
from concurrent.futures import wait

import numpy as np
import pytest

from bottlefit_jax.serve.batch_queue import QueueFull
from bottlefit_jax.serve.batching import Batcher, Closed, Expired, TailFailed


class Tail:
    """The logits are the first byte of each latent. Holds each batch until it is released."""

    def __init__(self, *, held=True):
        self.sizes, self.begun, self.release = [], threading.Semaphore(0), threading.Semaphore(0)
        self.held = held

    def __call__(self, latent):
        self.sizes.append(len(latent))
        self.begun.release()
        if self.held:
            assert self.release.acquire(timeout=60)
        if latent.max() == 255:
            raise RuntimeError("out of order")
        return latent.reshape(len(latent), -1)[:, :1].astype(np.float32)

    def go(self):
        self.held = False
        self.release.release(100)


def latent(value, batch=1):
    return np.full((batch, 1, 1, 2), value, np.uint8)


@pytest.fixture
def tail():
    return Tail()


@pytest.fixture
def batcher(tail):
    batcher = Batcher(tail, max_batch=4, delay=0.2, limit=6)
    yield batcher
    tail.go()
    batcher.close()


def test_one_request_alone_does_not_wait(tail):
    batcher = Batcher(tail, max_batch=4, delay=1000, limit=6)
    tail.go()
    result = batcher.submit(latent(7)).result(60)
    batcher.close()
    np.testing.assert_array_equal(result.logits, [[7]])
    assert result.batch == 1


def test_requests_that_wait_run_together_and_each_gets_its_own_result(tail, batcher):
    first = batcher.submit(latent(1))
    tail.begun.acquire()
    others = [batcher.submit(latent(2)), batcher.submit(latent(3, batch=2)), batcher.submit(latent(4))]
    tail.go()
    wait([first, *others], 60)
    assert tail.sizes == [1, 4]
    assert [other.result().logits.tolist() for other in others] == [[[2]], [[3], [3]], [[4]]]
    assert [other.result().batch for other in others] == [4, 4, 4]


def test_the_order_is_kept_where_the_next_does_not_fit(tail, batcher):
    first = batcher.submit(latent(1))
    tail.begun.acquire()
    others = [batcher.submit(latent(2, batch=n)) for n in (3, 3, 1)]
    tail.go()
    wait([first, *others], 60)
    assert tail.sizes == [1, 3, 4]


def test_two_that_wait_run_when_the_delay_is_over(tail):
    now = 100.0
    batcher = Batcher(tail, max_batch=4, delay=0.05, limit=6, clock=lambda: now)
    first = batcher.submit(latent(1))
    tail.begun.acquire()
    others = [batcher.submit(latent(2)), batcher.submit(latent(3))]
    tail.go()
    first.result(60)
    assert wait(others, 0.2).not_done == {*others}  # on the batcher's clock it is not over
    now += 0.06
    assert [other.result(60).queue_us for other in others] == [60_000, 60_000]
    assert tail.sizes == [1, 2]
    batcher.close()


def test_a_full_queue_refuses_at_once(tail, batcher):
    first = batcher.submit(latent(1))
    tail.begun.acquire()
    others = [batcher.submit(latent(2)) for _ in range(6)]
    with pytest.raises(QueueFull):
        batcher.submit(latent(3))
    assert len(batcher) == 6
    tail.go()
    assert not wait([first, *others], 60).not_done


def test_cancelled_and_expired_requests_are_not_run_and_free_their_places(tail):
    now = 100.0
    batcher = Batcher(tail, max_batch=4, delay=0, limit=6, clock=lambda: now)
    first = batcher.submit(latent(1))
    tail.begun.acquire()
    cancelled = [batcher.submit(latent(2)) for _ in range(3)]
    expired = [batcher.submit(latent(3), deadline=now + 0.01) for _ in range(3)]
    assert all(future.cancel() for future in cancelled)
    now += 0.02
    last = batcher.submit(latent(4), deadline=math.inf)
    assert len(batcher) == 1
    tail.go()
    wait([first, last], 60)
    batcher.close()
    assert tail.sizes == [1, 1]
    for future in expired:
        with pytest.raises(Expired):
            future.result(0)


def test_a_tail_that_raises_fails_its_batch_alone(tail, batcher):
    tail.go()
    with pytest.raises(TailFailed, match="out of order"):
        batcher.submit(latent(255)).result(60)
    assert batcher.submit(latent(5)).result(60).logits == 5


def test_closing_finishes_what_was_taken_and_takes_no_more(tail):
    batcher = Batcher(tail, max_batch=2, delay=10, limit=9)
    futures = [batcher.submit(latent(1)) for _ in range(6)]
    tail.begun.acquire()
    threading.Timer(0.1, tail.go).start()
    batcher.close()
    assert all(future.done() and future.result().logits.item() == 1 for future in futures)
    with pytest.raises(Closed):
        batcher.submit(latent(1))
