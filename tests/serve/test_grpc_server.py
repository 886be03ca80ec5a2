"""Full queues, deadlines, cancelled requests and an orderly end, with a slow tail."""

import contextlib
import socket
import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.serve import grpc_server
from bottlefit_jax.serve import server as server_file
from tests.serve import example
from tests.serve.example import infer_request, latents, status_of


@pytest.fixture
def hold():
    """The slow tail's batches end while this is set, as it is at first."""
    hold = threading.Event()
    hold.set()
    yield hold
    hold.set()


@pytest.fixture
def slow(tmp_path, monkeypatch, hold):
    """A server whose tail takes 0.2 s a batch."""
    ran = []

    def open_tail(bundle, **_):
        def tail(latent):
            ran.append(len(latent))
            time.sleep(0.2)
            hold.wait(30)
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


def test_a_request_past_its_deadline_is_not_run(slow):
    _, method, ran = slow
    data = infer_request(latents()).SerializeToString()
    first = method.future(data, timeout=10)
    time.sleep(0.05)
    late = [method.future(data, timeout=0.05) for _ in range(5)]
    assert {call.code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    first.result()
    method(data, timeout=10)
    assert ran == [1, 1]


def test_a_cancelled_request_is_not_run(slow, hold):
    _, method, ran = slow
    data = infer_request(latents()).SerializeToString()
    hold.clear()
    first = method.future(data, timeout=30)
    while not ran:
        time.sleep(0.01)
    others = [method.future(data, timeout=10) for _ in range(5)]
    time.sleep(0.05)
    for call in others:
        call.cancel()
    time.sleep(0.5)  # the server hears of it while the first one runs
    hold.set()
    first.result()
    method(data, timeout=10)
    assert ran == [1, 1]


def test_a_full_queue_is_a_status_and_nothing_is_lost(slow):
    running, _, ran = slow
    codes = []

    def send():
        with example.channel_to(running.address) as channel:
            method = example.raw_method(channel, "ModelInfer")
            codes.append(status_of(method, infer_request(latents()).SerializeToString())[0])

    threads = [threading.Thread(target=send) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(codes) == 200
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) == sum(ran) >= 17


def test_stopping_finishes_what_was_taken_and_takes_no_more(tmp_path, monkeypatch):
    def tail(latent):
        time.sleep(0.3)
        return example.expected(latent)

    monkeypatch.setattr(server_file, "open_tail", lambda bundle, **_: tail)
    data = infer_request(latents()).SerializeToString()
    bundle = example.write(tmp_path / "slow")
    with (
        example.serving(bundle, max_batch=1) as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        taken = [method.future(data, timeout=20) for _ in range(4)]
        time.sleep(0.15)
        stopping = threading.Thread(target=lambda: example.on_loop(running.stop(30)))
        stopping.start()
        time.sleep(0.1)
        ready = example.raw_method(channel, "ServerReady")(b"", timeout=5)
        assert not pb.ServerReadyResponse.FromString(ready).ready
        for _ in range(2):  # while it says so, and when it no longer listens
            assert status_of(method, data)[0] == grpc.StatusCode.UNAVAILABLE
            time.sleep(0.4)
        assert [call.code() for call in taken] == [grpc.StatusCode.OK] * 4
        stopping.join()


def test_a_busy_server_refuses_before_it_reads(tmp_path):
    """What gRPC's core holds while Python is busy is bounded, and the rest refused at once."""
    data = infer_request(latents()).SerializeToString()
    with (
        example.serving(example.write(tmp_path / "a")) as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        method(data, timeout=10)
        free = threading.Event()
        example.loop().call_soon_threadsafe(free.wait, 20)
        calls = [method.future(data, timeout=20) for _ in range(300)]
        held = grpc_server.PENDING_AT_MOST + 2  # one is on its way to Python, one waits for it
        end = time.monotonic() + 10
        while sum(not call.done() for call in calls) > held and time.monotonic() < end:
            time.sleep(0.005)
        waiting = sum(not call.done() for call in calls)
        free.set()
        codes = [call.code() for call in calls]
    assert waiting <= held
    assert grpc_server.PENDING <= codes.count(grpc.StatusCode.OK) <= held
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_a_request_that_cannot_be_answered_in_time_is_refused_at_once(tmp_path, monkeypatch):
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def tail(latent):
        begun.release()
        assert go.acquire(timeout=20)
        return example.expected(latent)

    monkeypatch.setattr(server_file, "open_tail", lambda bundle, **_: tail)
    data = infer_request(latents()).SerializeToString()
    with (
        example.serving(example.write(tmp_path / "slow")) as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        first = method.future(data, timeout=20)
        begun.acquire()
        time.sleep(0.5)  # so long it takes for an image
        go.release()
        first.result()
        second = method.future(data, timeout=20)
        begun.acquire()
        third = method.future(data, timeout=0.6)
        assert third.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "overloaded, try again later: an answer would take" in third.details()
        go.release()
        second.result()


def test_a_connection_that_says_nothing_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(grpc_server, "SILENCE_MS", 300)
    with (
        example.serving(example.write(tmp_path / "a")) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as silent,
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
    answering(infer_request(latents()).SerializeToString(), timeout=20)


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """ModelInfer of a server that has nothing else to do."""
    bundle = example.write(tmp_path_factory.mktemp("bundle") / "a")
    with example.serving(bundle) as running, example.channel_to(running.address) as channel:
        yield example.raw_method(channel, "ModelInfer")
