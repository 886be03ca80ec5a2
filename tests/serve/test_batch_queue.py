"""The server's queue without its thread: what is taken, refused and dropped, at times that the test says."""

import math

import pytest

from bottlefit_jax.serve.batch_queue import BatchQueue, QueueFull, Waiting


@pytest.fixture
def expired():
    return []


@pytest.fixture
def queue(expired):
    return BatchQueue(max_batch=4, delay=0.010, limit=6, expire=expired.append)


def put(queue, now, *, count=1, deadline=math.inf):
    request = Waiting(count, deadline, now)
    queue.put(request, now)
    return request


def run(queue, now, seconds):
    """Begins what is there and ends it; returns the batch."""
    batch, _ = queue.take(now)
    queue.ended(seconds, sum(each.count for each in batch))
    return batch


def test_a_request_that_is_alone_runs_at_once(queue):
    request = put(queue, 0.0)
    assert request.alone
    assert queue.take(0.0) == ([request], 0.0)
    assert queue.is_running


def test_others_wait_for_more_until_the_batch_is_full_or_their_time_is_over(queue):
    first = put(queue, 0.0)
    queue.take(0.0)
    waiting = [put(queue, 0.001), put(queue, 0.002)]
    assert not waiting[0].alone
    queue.ended(0.004, 1)
    assert queue.take(0.004) == ([], pytest.approx(0.007))
    assert queue.take(0.011) == (waiting, 0.0)
    more = [put(queue, 0.012) for _ in range(5)]
    queue.ended(0.008, 2)
    assert queue.take(0.012) == (more[:4], 0.0)
    assert len(queue) == 1
    assert first not in more


def test_a_request_is_taken_where_a_large_batch_answers_it_in_time():
    queue = BatchQueue(max_batch=8, delay=0.0, limit=100)
    for count, seconds in [(1, 0.060), (4, 0.105), (1, 0.060), (8, 0.165)]:  # 45 ms, and 15 ms an image
        put(queue, 0.0, count=count)
        run(queue, 0.0, seconds)
    put(queue, 1.0)
    queue.take(1.0)
    waiting = [put(queue, 1.0, deadline=1.4) for _ in range(8)]  # 60 ms that run, and 165 ms; by the image 540 ms
    with pytest.raises(QueueFull, match="to the deadline"):
        put(queue, 1.0, deadline=1.2)
    queue.ended(0.060, 1)
    assert queue.take(1.06) == (waiting, 0.0)


def test_a_batch_that_nobody_waits_for_begins_when_it_is_asked_to(queue):
    put(queue, 0.0)
    queue.take(0.0)
    others = [put(queue, 0.0), put(queue, 0.0)]
    queue.ended(0.001, 1)
    assert queue.take(0.001, at_once=True) == (others, 0.0)


def test_a_request_is_refused_where_those_before_it_take_too_long(queue):
    put(queue, 0.0)
    run(queue, 0.0, 0.1)  # 0.1 seconds an image
    put(queue, 1.0)
    queue.take(1.0)
    put(queue, 1.0, deadline=2.0)
    with pytest.raises(QueueFull, match="an answer would take 300 ms, of 400 ms to the deadline"):
        put(queue, 1.0, deadline=1.4)
    assert len(queue) == 1


def test_the_queue_has_a_limit(queue):
    put(queue, 0.0)
    queue.take(0.0)
    for _ in range(6):
        put(queue, 0.0)
    with pytest.raises(QueueFull, match="6 requests wait"):
        put(queue, 0.0)


def test_what_would_end_late_is_dropped_and_reported(queue, expired):
    put(queue, 0.0)
    run(queue, 0.0, 0.1)
    put(queue, 1.0)
    queue.take(1.0)
    late, good = put(queue, 1.0, deadline=1.5), put(queue, 1.0, deadline=9.0)
    queue.ended(0.1, 1)
    assert run(queue, 1.45, 0.1) == [good]
    assert expired == [late]
    assert len(queue) == 0


def test_one_request_that_makes_another_late_is_left_for_the_next_batch(queue):
    put(queue, 0.0)
    run(queue, 0.0, 0.1)
    put(queue, 1.0)
    queue.take(1.0)
    soon, other = put(queue, 1.0, deadline=1.35), put(queue, 1.0, count=3)
    queue.ended(0.1, 1)
    assert queue.take(1.1) == ([soon], 0.0)
    queue.ended(0.1, 1)
    assert queue.take(1.2) == ([other], 0.0)


def test_a_failed_batch_teaches_nothing(queue):
    put(queue, 0.0)
    queue.take(0.0)
    queue.ended(None, 1)
    assert not queue.is_running
    put(queue, 1.0)
    queue.take(1.0)
    put(queue, 1.0, deadline=1.001)  # nothing is known of the tail's times


def test_an_empty_queue_has_nothing_to_run_and_nothing_to_wait_for(queue, expired):
    assert queue.take(0.0) == queue.take(0.0, at_once=True) == ([], math.inf)
    assert not queue.is_running
    assert expired == []
