"""Servers that are away for a while, and connections that die silently."""

import contextlib
import functools
import socket
import threading
import time
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from bottlefit_jax.edge import connection
from bottlefit_jax.edge.call_plan import Encoded
from bottlefit_jax.edge.channel import Deadline, ServerChannel
from bottlefit_jax.edge.client import EdgeClient, Unavailable
from bottlefit_jax.edge.connection import Connection
from tests.edge.server import serve


class Proxy:
    """Forwards bytes to `port`; connections made before `freeze` stay open and forward nothing."""

    def __init__(self, port):
        self._port, self._listening = port, socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections, self._frozen, self._sockets = 0, 0, []
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self):
        self._frozen = self.connections

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        for one in [self._listening, *self._sockets]:
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                self.connections += 1
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(*pair, self.connections), daemon=True).start()

    def _forward(self, source, sink, number):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if number > self._frozen:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(server):
    proxy = Proxy(int(server.rpartition(":")[2]))
    yield proxy
    proxy.close()


@contextlib.contextmanager
def a_tenth_of_a_second_is_silence():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "SILENT_SHARE", 0.0)  # the shortest share counts
        yield


def test_a_connection_that_died_silently_costs_no_image(bundle, proxy, tail, image):
    latent = int(image[1:30, 2:31].sum()) % 10
    with EdgeClient(bundle, proxy.address) as client:
        assert client.infer(image).index == latent
        for count in range(1, 4):
            proxy.freeze()
            with a_tenth_of_a_second_is_silence():
                assert client.infer(image).index == latent
            assert proxy.connections == 1 + count


def test_a_deadline_too_short_for_a_second_connection_costs_one_image(bundle, proxy, image, deadlines, monkeypatch):
    with EdgeClient(bundle, proxy.address) as client:
        client.infer(image)
        proxy.freeze()
        deadlines.append(0.29)
        with pytest.raises(Unavailable):
            client.infer(image)
        monkeypatch.setattr(connection, "SILENT_SHARE", 1.0)  # no second connection beside the one that is there
        client.infer(image)
    assert proxy.connections == 2


def test_a_first_connection_that_is_silent_gets_a_second_one(bundle, proxy, image):
    proxy._frozen = 1
    with EdgeClient(bundle, proxy.address) as client:
        with a_tenth_of_a_second_is_silence():
            client.connect()
        client.infer(image)
    assert proxy.connections == 2


@pytest.fixture
def patient_pings(monkeypatch):
    """An answer to a ping counts whenever it comes."""
    ping = ServerChannel.ping
    monkeypatch.setattr(ServerChannel, "ping", lambda self, seconds: ping(self, 60))
    monkeypatch.setattr(
        connection, "wait", lambda calls, _=None, return_when="ALL_COMPLETED": futures.wait(calls, None, return_when)
    )


def test_a_slow_answer_over_a_live_connection_is_waited_for(bundle, proxy, tail, image, deadlines, patient_pings):
    with EdgeClient(bundle, proxy.address) as client:
        client.infer(image)
        tail.pinged.clear()
        tail.gate = tail.pinged  # the answer comes after the client has asked whether the connection lives
        with a_tenth_of_a_second_is_silence():
            client.infer(image)
        assert len(tail.requests) == 2
        tail.silences = 1
        deadlines.append(0.8)
        with pytest.raises(Unavailable):
            client.infer(image)
        tail.silences = 0
        client.infer(image)
    assert proxy.connections == 1


def test_an_outage_that_ends_before_the_deadline_costs_no_image(bundle, tail, image, clock):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    servers = []

    def come_back():
        if clock.now > 0.94 * 240:
            servers.append(serve(tail, port=port)[0])

    clock.paused = come_back
    with EdgeClient(bundle, f"127.0.0.1:{port}", deadline_ms=240_000) as client:
        client.infer(image)
    (server,) = servers
    server.stop(0).wait()


def test_the_last_attempt_is_near_the_end_of_the_deadline(bundle, image, monkeypatch, clock):
    times = []
    original = ServerChannel.infer
    monkeypatch.setattr(ServerChannel, "infer", lambda *args: times.append(clock.now) or original(*args))
    with (
        EdgeClient(bundle, "127.0.0.1:9", deadline_ms=60_000) as client,
        pytest.raises(Unavailable, match=r"within 60000 ms: UNAVAILABLE: .*Connection refused"),
    ):
        client.infer(image)
    assert 0.94 * 60 <= times[-1] < 60


def test_a_full_queue_does_not_cost_connections(bundle, server, tail, image):
    """As a Triton whose queue is full says UNAVAILABLE, to many devices at once."""
    tail.refusals = [grpc.StatusCode.UNAVAILABLE] * 18
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(EdgeClient(bundle, server)) for _ in range(6)]
        threads = [threading.Thread(target=client.infer, args=(image,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(tail.requests) == 24
    assert len(tail.peers) == 6


def test_a_connection_that_died_under_several_requests_costs_none_of_them(bundle, proxy, tail, image):
    latent = int(image[1:30, 2:31].sum()) % 10
    with EdgeClient(bundle, proxy.address) as client:
        client.infer(image)
        several = Connection(client.manifest, proxy.address, calls=4)
        send = functools.partial(several.infer, Encoded(image[1:30, 2:31].tobytes()), Deadline(60))
        with ThreadPoolExecutor(4) as threads, contextlib.closing(several):
            assert send().before is not None
            for _ in range(3):
                proxy.freeze()
                with a_tenth_of_a_second_is_silence():
                    answers = [call.result() for call in [threads.submit(send) for _ in range(4)]]
                for answer in answers:
                    assert np.frombuffer(answer.response.raw_output_contents[0], np.float32).argmax() == latent


def test_all_requests_go_on_with_the_same_second_channel(bundle):
    with EdgeClient(bundle, "127.0.0.1:9") as client:
        several = Connection(client.manifest, "127.0.0.1:9", calls=4)
    with contextlib.closing(several):
        first = several._current()
        second = several._beside(first)
        assert several._beside(first) is second
        several._keep(second, first)
        several._keep(first, second)  # of a request that has had its answer over the first one just now
        assert (first.is_closed, second.is_closed) == (True, False)
        assert several._current() is several._beside(first) is second
        several._drop(first)
        assert several._current() is second
        several._drop(second)
        assert not several._current().is_closed


def test_calls_at_once_are_answered_and_their_bytes_are_not_mistaken_for_each_others(bundle, server, tail, image):
    with EdgeClient(bundle, server) as client:
        several = Connection(client.manifest, server, calls=3)
        send = functools.partial(several.infer, Encoded(image[1:30, 2:31].tobytes()), Deadline(60))
        with ThreadPoolExecutor(3) as threads, contextlib.closing(several):
            alone = [send(), send()]
            tail.gate.clear()
            calls = [threads.submit(send) for _ in range(3)]
            while len(tail.requests) < 5:
                time.sleep(0.01)
            tail.gate.set()
            together = [call.result() for call in calls]
            alone.append(send())
    assert [answer.before is None for answer in alone] == [False] * 3
    assert [(answer.before, answer.after) for answer in together] == [(None, None)] * 3
    assert len(tail.peers) == 1


def test_short_deadlines_that_are_missed_leave_a_connection_that_lives(bundle, proxy, tail, image, deadlines):
    """A new one takes several round trips, which are longer than the deadline: it would never be ready."""
    with EdgeClient(bundle, proxy.address) as client:
        client.infer(image)
        tail.gate.clear()
        for _ in range(5):
            deadlines.append(0.1)
            with pytest.raises(Unavailable):
                client.infer(image)
        tail.gate.set()
        client.infer(image)
    assert proxy.connections == 1
