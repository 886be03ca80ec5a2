"""Full queues, deadlines, cancelled requests and an orderly end, with a tail that takes its time."""

import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.serve import assembly
from tests.serve import example
from tests.serve.example import infer_request, latents, status_of


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A server whose tail takes 0.2 s a batch."""
    ran = []

    def open_tail(bundle, **_):
        def tail(latent):
            ran.append(len(latent))
            time.sleep(0.2)
            return example.expected(latent)

        return tail

    monkeypatch.setattr(assembly, "open_tail", open_tail)
    with (
        example.serving("--bundle", example.write(tmp_path / "slow"), "--queue", "16") as running,
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


def test_a_cancelled_request_is_not_run(slow):
    _, method, ran = slow
    data = infer_request(latents()).SerializeToString()
    first = method.future(data, timeout=10)
    time.sleep(0.05)
    others = [method.future(data, timeout=10) for _ in range(5)]
    time.sleep(0.05)
    for call in others:
        call.cancel()
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

    monkeypatch.setattr(assembly, "open_tail", lambda bundle, **_: tail)
    data = infer_request(latents()).SerializeToString()
    bundle = example.write(tmp_path / "slow")
    with (
        example.serving("--bundle", bundle, "--max-batch", "1") as running,
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
