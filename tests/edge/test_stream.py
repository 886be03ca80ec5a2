"""A stream of images: several on their way at once, in order, with errors that do not end it."""

import itertools
import threading
import time

import numpy as np
import pytest

from bottlefit_jax.edge.client import EdgeClient, ImageError, ProtocolError, Unavailable
from bottlefit_jax.edge.newest import in_turn, newest
from bottlefit_jax.errors import UserError
from tests.edge.test_adaptive import local_class
from tests.edge.test_client import latent_of


@pytest.fixture
def images():
    return list(np.random.default_rng(2).integers(0, 256, (7, 32, 32, 3), np.uint8))


def test_results_are_in_order_and_as_those_of_single_images(bundle, server, tail, images):
    with EdgeClient(bundle, server) as client:
        before = time.time()
        results = list(client.stream(images))
        single = [client.infer(image) for image in images]
    assert [result.number for result in results] == [1, 2, 3, 4, 5, 6, 7]
    assert [result.prediction.index for result in results] == [one.index for one in single]
    assert [result.prediction.route for result in results] == [one.route for one in single]
    assert all(before <= one.taken <= two.taken for one, two in itertools.pairwise(results))
    assert {result.dropped for result in results} == {0}


def test_so_many_requests_are_on_their_way_at_once_and_no_more(bundle, server, tail, images):
    taken = []
    with EdgeClient(bundle, server) as client:
        client.infer(images[0])
        tail.gate.clear()
        tail.requests.clear()
        results = client.stream((taken.append(1) or image for image in images), in_flight=3)
        first = threading.Thread(target=lambda: next(results))
        first.start()
        while len(tail.requests) < 3:
            time.sleep(0.01)
        time.sleep(0.1)
        assert (len(tail.requests), len(taken)) == (3, 3)
        tail.gate.set()
        first.join()
        assert [result.number for result in results] == [2, 3, 4, 5, 6, 7]


def test_an_image_that_fails_is_a_result_and_the_stream_goes_on(bundle, server, tail, images, deadlines, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG nothing")
    with EdgeClient(bundle, server) as client:
        client.infer(images[0])
        tail.silences = 1
        deadlines[:] = [0.4, 60.0, 60.0, 60.0]
        results = list(client.stream([images[0], damaged, images[1], images[2][:, :, :2]], in_flight=1))
    assert [type(result.error) for result in results] == [Unavailable, ImageError, type(None), ImageError]
    assert [result.prediction is None for result in results] == [True, True, False, True]
    assert results[2].prediction.index == latent_of(images[1]).sum() % 10


def test_an_answer_that_cannot_be_used_fails_one_image(bundle, server, tail, images):
    def alter(response):
        if len(tail.requests) == 2:
            response.raw_output_contents[0] = b"short"
        return response

    tail.alter = alter
    with EdgeClient(bundle, server) as client:
        results = list(client.stream(images[:3], in_flight=1))
    assert [type(result.error) for result in results] == [type(None), ProtocolError, type(None)]


def test_a_server_of_another_head_ends_the_stream(bundle, server, tail, images):
    tail.head = "d" * 64
    with EdgeClient(bundle, server) as client, pytest.raises(UserError, match="belongs to another head"):
        list(client.stream(images))


def test_what_the_images_raise_ends_the_stream_after_the_results_before(bundle, server, images):
    def camera():
        yield from images[:2]
        raise Unavailable("camera 0 gives no more frames")

    with EdgeClient(bundle, server) as client:
        results = client.stream(camera())
        assert [next(results).number, next(results).number] == [1, 2]
        with pytest.raises(Unavailable, match="no more frames"):
            next(results)


def test_a_stream_that_is_left_early_ends_its_thread_and_closes_the_images(bundle, server, tail, images):
    closed = threading.Event()

    def camera():
        try:
            yield from itertools.cycle(images)
        finally:
            closed.set()

    with EdgeClient(bundle, server) as client:
        results = client.stream(camera(), in_flight=2)
        next(results)
        tail.gate.clear()
        started = time.monotonic()
        results.close()
        assert closed.wait(10)
        assert time.monotonic() - started < 20  # not the minute that the requests have
        tail.gate.set()
        assert client.infer(images[0]).index == latent_of(images[0]).sum() % 10
    assert not [thread for thread in threading.enumerate() if thread.name in ("stream", "newest")]


def test_without_a_server_the_whole_network_classifies_the_stream(bundle, images):
    with EdgeClient(bundle, None) as client:
        results = list(client.stream(images))
    assert [result.prediction.index for result in results] == [local_class(image) for image in images]
    assert {result.prediction.route.path for result in results} == {"local"}


def test_the_policy_has_several_images_on_their_way_too(rated, server, taker, images):
    with EdgeClient(rated, server, policy="auto") as client:
        client.infer(images[0])
        taker.gate.clear()
        taker.requests.clear()
        results = client.stream(images, in_flight=3)
        found = []
        reading = threading.Thread(target=lambda: found.extend(results))
        reading.start()
        while len(taker.requests) < 2:
            time.sleep(0.01)
        taker.gate.set()
        reading.join()
    assert [result.number for result in found] == [1, 2, 3, 4, 5, 6, 7]
    for image, result in zip(images, found, strict=True):
        assert result.prediction.route.path in ("lossless", "coarse")
        if result.prediction.route.path == "lossless":
            assert result.prediction.index == latent_of(image).sum() % 10


def test_the_policy_has_as_many_requests_on_their_way_as_asked_for(rated, server, taker, images):
    """Beyond the 8 that it may have by default."""
    with EdgeClient(rated, server, policy="auto", deadline_ms=60_000) as client:
        client.infer(images[0])
        taker.gate.clear()
        taker.requests.clear()
        results = client.stream(itertools.islice(itertools.cycle(images), 12), in_flight=10)
        found = []
        reading = threading.Thread(target=lambda: found.extend(results))
        reading.start()
        while len(taker.requests) < 10:
            time.sleep(0.01)
        taker.gate.set()
        reading.join()
    assert [result.error for result in found] == [None] * 12


def test_the_local_network_answers_those_images_of_a_stream_that_the_server_does_not(
    rated, server, taker, images, deadlines
):
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        client.infer(images[0])
        taker.gate.clear()
        deadlines[:] = [1.0] * len(images)
        results = list(client.stream(images, in_flight=3))
        taker.gate.set()
    assert [result.error for result in results] == [None] * len(images)
    assert [result.prediction.index for result in results] == [local_class(image) for image in images]
    assert {result.prediction.route.path for result in results} == {"local"}


@pytest.mark.parametrize("in_flight", [0, 65])
def test_a_number_of_requests_out_of_range_is_refused(bundle, server, in_flight):
    with (
        EdgeClient(bundle, server) as client,
        pytest.raises(UserError, match=f"in_flight is {in_flight}: give 1 to 64"),
    ):
        client.stream([], in_flight=in_flight)


def test_the_newest_image_is_taken_and_the_others_are_counted():
    asked, may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def camera():
        for number in range(1, 8):
            asked.release()
            may_go_on.acquire()
            yield number

    def let_through(count):
        for _ in range(count):
            asked.acquire()
            may_go_on.release()

    frames = newest(camera())
    let_through(0)
    threading.Thread(target=let_through, args=(1,)).start()
    assert next(frames).image == 1
    let_through(4)
    asked.acquire()  # the camera is asked for the sixth: the fifth is held
    frame = next(frames)
    assert (frame.image, frame.number, frame.dropped) == (5, 5, 3)
    may_go_on.release()
    let_through(1)
    rest = list(frames)
    assert rest[-1].image == 7
    assert rest[-1].dropped + len(rest) + 2 == 7


def test_any_error_of_a_camera_reaches_what_takes_its_images():
    def camera():
        yield 1
        raise OSError("a driver's own")

    with pytest.raises(OSError, match="a driver's own"):
        list(newest(camera()))


def test_images_in_turn_are_all_there():
    frames = list(in_turn("abc"))
    assert [(frame.number, frame.image, frame.dropped) for frame in frames] == [(1, "a", 0), (2, "b", 0), (3, "c", 0)]
