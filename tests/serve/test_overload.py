"""More requests than the tail can run, on a clock that the test moves."""

import asyncio
import contextlib
import math
import random
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from bottlefit_jax.serve.batch_queue import QueueFull
from bottlefit_jax.serve.batching import Batcher, Expired, Inbox, Result
from tests.serve.example import until


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Tail:
    """Takes `seconds` of the clock for an image; begins when it is called, ends when the test says so."""

    def __init__(self, clock, seconds=0.1):
        self.clock, self.seconds, self.sizes = clock, seconds, []
        self._ends = threading.Semaphore(0)

    def __call__(self, latent):
        self.sizes.append(len(latent))
        assert self._ends.acquire(timeout=60)
        self.clock.now += self.seconds * len(latent)
        return np.zeros((len(latent), 1), np.float32)

    def end(self, batches=1):
        self._ends.release(batches)


LATENT = np.zeros((1, 1, 1, 1), np.uint8)


@contextlib.contextmanager
def batcher_of(tail, *, limit=1000, known=True):
    """A batcher that has measured the time of an image, unless `known` is False."""
    batcher = Batcher(tail, max_batch=4, delay=0, limit=limit, clock=tail.clock)
    try:
        if known:
            future = batcher.submit(LATENT)
            tail.end()
            future.result(60)
            until(lambda: not batcher._queue.is_running)
        yield batcher
    finally:
        tail.end(10_000)
        batcher.close()


@pytest.fixture
def tail():
    return Tail(Clock())


def run_one(batcher, tail):
    """A request that keeps the tail busy until `tail.end`."""
    count = len(tail.sizes)
    future = batcher.submit(LATENT)
    until(lambda: len(tail.sizes) > count)
    return future


def test_a_request_that_would_end_late_is_refused_at_once(tail):
    with batcher_of(tail) as batcher:
        run_one(batcher, tail)
        deadline = tail.clock.now + 1.001
        for _ in range(6):  # 0.1 s for what runs and 6 times 0.1 s, of 0.7 s
            batcher.submit(LATENT, deadline=deadline)
        with pytest.raises(QueueFull, match="an answer would take 800 ms, of 1001 ms to the deadline"):
            batcher.submit(LATENT, deadline=deadline)
        batcher.submit(LATENT, deadline=deadline + 1)
        batcher.submit(LATENT)
        with pytest.raises(QueueFull):
            batcher.submit(LATENT, deadline=-math.inf)


def test_images_count_and_not_requests(tail):
    with batcher_of(tail) as batcher:
        run_one(batcher, tail)
        batcher.submit(np.repeat(LATENT, 4, 0), deadline=tail.clock.now + 1)
        with pytest.raises(QueueFull):
            batcher.submit(np.repeat(LATENT, 4, 0), deadline=tail.clock.now + 1)
        batcher.submit(LATENT, deadline=tail.clock.now + 1)


def test_a_request_that_would_end_late_by_now_is_not_run(tail):
    with batcher_of(tail) as batcher:
        first = run_one(batcher, tail)
        late = batcher.submit(LATENT, deadline=tail.clock.now + 0.8)
        soon = batcher.submit(LATENT, deadline=tail.clock.now + 9)
        tail.clock.now += 0.65  # and 0.1 for the first: of 0.8 s 0.05 are left, and an image takes 0.1
        tail.end(2)
        assert first.result(60).batch == soon.result(60).batch == 1
        with pytest.raises(Expired):
            late.result(60)


def test_a_batch_makes_no_request_in_it_late(tail):
    with batcher_of(tail) as batcher:
        run_one(batcher, tail)
        hurried = batcher.submit(LATENT, deadline=tail.clock.now + 0.35)
        others = [batcher.submit(LATENT) for _ in range(3)]
        tail.end(3)
        assert hurried.result(60).batch == 2  # 0.25 s are left, of which two images take 0.2
        assert [other.result(60).batch for other in others] == [2, 2, 2]


def test_one_slow_batch_does_not_refuse_everyone_for_ever(tail):
    with batcher_of(tail) as batcher:
        tail.seconds = 1000
        slow = run_one(batcher, tail)
        tail.end()
        slow.result(60)
        tail.seconds = 0.1
        for _ in range(60):
            until(lambda: not batcher._queue.is_running)
            future = batcher.submit(LATENT, deadline=tail.clock.now + 1)
            tail.end()
            future.result(60)
        until(lambda: not batcher._queue.is_running)
        run_one(batcher, tail)
        batcher.submit(LATENT, deadline=tail.clock.now + 1)


@pytest.mark.parametrize("deadline", [math.inf, 1e300, math.nan])
def test_any_deadline_that_is_not_over_is_answered(tail, deadline):
    with batcher_of(tail) as batcher:
        future = batcher.submit(LATENT, deadline=deadline)
        tail.end()
        assert future.result(60).batch == 1


@pytest.mark.parametrize("times", [1.3, 2, 5])
@pytest.mark.parametrize(("seconds", "deadline"), [(0.04, 2), (0.005, 0.5)])
def test_overload_does_not_reduce_the_answers_in_time(times, seconds, deadline):
    rng, clock = random.Random(7), Clock()
    count, in_time, late, sent, refused = round(400 * times), 0, 0, [], 0
    arrivals = sorted(clock.now + rng.uniform(0, 400 * seconds) for _ in range(count))
    began = arrivals[0]

    def simulated(latent):
        """The tail; it also submits what arrives while it runs, so that one thread decides the order."""
        nonlocal refused
        ends = clock.now + seconds * rng.uniform(0.8, 1.2) * len(latent)
        while arrivals and arrivals[0] <= ends:
            clock.now = max(clock.now, arrivals.pop(0))
            try:
                sent.append((clock.now, batcher.submit(LATENT, deadline=clock.now + deadline)))
            except QueueFull:
                refused += 1
        clock.now = ends
        return np.full((len(latent), 1), clock.now, np.float64)

    batcher = Batcher(simulated, max_batch=8, delay=0, limit=10_000, clock=clock)
    while arrivals:  # the tail is idle: the next arrival begins a batch
        clock.now = max(clock.now, arrivals.pop(0))
        due = clock.now
        future = batcher.submit(LATENT, deadline=due + deadline)
        sent.append((due, future))
        until(lambda: len(batcher) == 0 and not batcher._queue.is_running)
    batcher.close()
    for due, future in sent:
        if future.exception() is None:
            if future.result().logits.item() <= due + deadline:
                in_time += 1
            else:
                late += 1
    assert in_time >= 0.9 * (clock.now - began) / seconds
    assert late <= 0.02 * in_time
    assert refused + len(sent) == count


def test_results_come_to_coroutines_and_a_cancelled_one_frees_its_place(tail):
    async def ask(batcher, inbox, count):
        calls = [asyncio.ensure_future(inbox.result(batcher.submit(LATENT))) for _ in range(count)]
        await asyncio.sleep(0.01)
        calls[-1].cancel()
        await asyncio.sleep(0.01)
        tail.end(10)
        return await asyncio.gather(*calls, return_exceptions=True)

    with batcher_of(tail) as batcher:
        *results, cancelled = asyncio.run(ask(batcher, Inbox(), 6))
    assert all(isinstance(result, Result) for result in results)
    assert isinstance(cancelled, CancelledError | asyncio.CancelledError)
    assert sum(tail.sizes) == 6  # with the one that showed how long an image takes
