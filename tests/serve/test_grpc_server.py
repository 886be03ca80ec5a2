"""Full queues, deadlines, cancelled requests and an orderly end, with a slow tail."""

import asyncio
import contextlib
import functools
import socket
import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.serve import grpc_server
from bottlefit_jax.serve import server as server_file
from bottlefit_jax.serve.batching import Batcher
from tests.serve import example
from tests.serve.example import batcher_of, infer_request, latents, status_of, until


@pytest.fixture
def hold():
    """The slow tail's batches end while this is set, as it is at first."""
    hold = threading.Event()
    hold.set()
    yield hold
    hold.set()


@pytest.fixture
def slow(tmp_path, monkeypatch, hold):
    """A server whose tail can be held."""
    ran = []

    def open_tail(bundle, **_):
        def tail(latent):
            ran.append(len(latent))
            hold.wait(60)
            return example.expected(latent)

        return tail

    monkeypatch.setattr(server_file, "open_tail", open_tail)
    # so that 200 requests at once reach our own queue
    monkeypatch.setattr(grpc_server, "PENDING", 1000)
    monkeypatch.setattr(grpc_server, "PENDING_AT_MOST", 1000)
    with (
        example.serving(example.write(tmp_path / "slow"), queue=16) as running,
        example.channel_to(running.address) as channel,
    ):
        yield running, example.raw_method(channel, "ModelInfer"), ran


def test_a_request_past_its_deadline_is_not_run(slow, hold):
    _, method, ran = slow
    data = infer_request(latents()).SerializeToString()
    hold.clear()
    first = method.future(data, timeout=60)
    until(lambda: ran)
    late = [method.future(data, timeout=0.05) for _ in range(5)]
    assert {call.code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    hold.set()
    first.result()
    method(data, timeout=60)
    assert ran == [1, 1]


def test_a_cancelled_request_is_not_run(slow, hold):
    running, method, ran = slow
    batcher = batcher_of(running)
    data = infer_request(latents()).SerializeToString()
    hold.clear()
    first = method.future(data, timeout=60)
    until(lambda: ran)
    others = [method.future(data, timeout=60) for _ in range(5)]
    until(lambda: len(batcher) == 5)
    for call in others:
        call.cancel()
    until(
        lambda: all(request.future.cancelled() for request in batcher._queue._queue)
    )  # the server hears of it meanwhile
    hold.set()
    first.result()
    method(data, timeout=60)
    assert ran == [1, 1]


def test_a_full_queue_is_a_status_and_nothing_is_lost(slow, hold):
    running, _, ran = slow
    codes = []
    hold.clear()

    def send():
        with example.channel_to(running.address) as channel:
            method = example.raw_method(channel, "ModelInfer")
            codes.append(status_of(method, infer_request(latents()).SerializeToString())[0])

    threads = [threading.Thread(target=send) for _ in range(200)]
    for thread in threads:
        thread.start()
    until(lambda: len(codes) >= 200 - 16 - 8)  # all but those in the queue and in the first batch
    hold.set()
    for thread in threads:
        thread.join()
    assert len(codes) == 200
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) == sum(ran) >= 17


def test_stopping_finishes_what_was_taken_and_takes_no_more(tmp_path, monkeypatch):
    go, stop_listening = threading.Event(), threading.Event()

    def tail(latent):
        assert go.wait(60)
        return example.expected(latent)

    sleep = asyncio.sleep

    async def as_long_as_the_test_needs(seconds, *result):
        if seconds == grpc_server.LAST_CALLS:
            await asyncio.to_thread(stop_listening.wait, 60)
        await sleep(seconds, *result)

    monkeypatch.setattr(asyncio, "sleep", as_long_as_the_test_needs)
    monkeypatch.setattr(server_file, "open_tail", lambda bundle, **_: tail)
    data = infer_request(latents()).SerializeToString()
    bundle = example.write(tmp_path / "slow")
    with (
        example.serving(bundle, max_batch=1) as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        ready = example.raw_method(channel, "ServerReady")
        taken = [method.future(data, timeout=60) for _ in range(4)]
        until(lambda: len(batcher_of(running)) == 3)
        stopping = threading.Thread(target=lambda: example.on_loop(running.stop(60)))
        stopping.start()
        until(lambda: not pb.ServerReadyResponse.FromString(ready(b"", timeout=60)).ready)
        assert status_of(method, data)[0] == grpc.StatusCode.UNAVAILABLE  # while it says so
        stop_listening.set()
        until(lambda: not listens(running.port))
        assert status_of(method, data)[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        go.set()
        assert [call.code() for call in taken] == [grpc.StatusCode.OK] * 4
        stopping.join()


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_a_busy_server_refuses_before_it_reads(tmp_path):
    """What gRPC's core holds while Python is busy is bounded, and the rest refused at once."""
    data = infer_request(latents()).SerializeToString()
    with (
        example.serving(example.write(tmp_path / "a")) as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        method(data, timeout=60)
        free = threading.Event()
        example.loop().call_soon_threadsafe(free.wait, 60)
        calls = [method.future(data, timeout=60) for _ in range(300)]
        held = grpc_server.PENDING_AT_MOST + 2  # one is on its way to Python, one waits for it
        end = time.monotonic() + 60
        while sum(not call.done() for call in calls) > held and time.monotonic() < end:
            time.sleep(0.005)
        waiting = sum(not call.done() for call in calls)
        free.set()
        codes = [call.code() for call in calls]
    assert waiting <= held
    assert grpc_server.PENDING <= codes.count(grpc.StatusCode.OK) <= held
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_a_request_that_cannot_be_answered_in_time_is_refused_at_once(tmp_path, monkeypatch):
    begun, go, ahead = threading.Semaphore(0), threading.Semaphore(0), [0.0]

    def tail(latent):
        begun.release()
        assert go.acquire(timeout=60)
        return example.expected(latent)

    monkeypatch.setattr(server_file, "open_tail", lambda bundle, **_: tail)
    monkeypatch.setattr(server_file, "Batcher", functools.partial(Batcher, clock=lambda: time.monotonic() + ahead[0]))
    data = infer_request(latents()).SerializeToString()
    with (
        example.serving(example.write(tmp_path / "slow")) as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        first = method.future(data, timeout=60)
        begun.acquire()
        ahead[0] = 100.0  # seconds that it takes for an image
        go.release()
        first.result()
        ahead[0] = 0.0
        second = method.future(data, timeout=60)
        begun.acquire()
        third = method.future(data, timeout=60)
        assert third.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "overloaded, try again later: an answer would take" in third.details()
        go.release()
        second.result()


def test_a_connection_that_says_nothing_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(grpc_server, "SILENCE_MS", 300)
    with (
        example.serving(example.write(tmp_path / "a")) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=60) as silent,
    ):
        while silent.recv(1000):  # the server's own settings, then the end
            pass


@pytest.mark.parametrize("microseconds", [0, 1, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("seconds", [1e9, 1e300, float("inf"), None])
def test_no_timeout_stops_the_server(answering, microseconds, seconds):
    request = infer_request(latents())
    request.parameters["timeout"].int64_param = microseconds
    codes = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    codes |= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    with contextlib.suppress(OverflowError, ValueError):  # gRPC's own client does not send it
        assert answering.future(request.SerializeToString(), timeout=seconds).code() in codes
    answering(infer_request(latents()).SerializeToString(), timeout=60)


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """ModelInfer of a server that has nothing else to do."""
    bundle = example.write(tmp_path_factory.mktemp("bundle") / "a")
    with example.serving(bundle) as running, example.channel_to(running.address) as channel:
        yield example.raw_method(channel, "ModelInfer")
