"""Servers that are away for a while, and connections that die silently."""

import contextlib
import socket
import threading
import time

import grpc
import pytest

from bottlefit_jax.edge.channel import ServerChannel
from bottlefit_jax.edge.client import EdgeClient, Unavailable
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


def test_a_connection_that_died_silently_costs_no_image(bundle, proxy, tail, image):
    latent = int(image[1:30, 2:31].sum()) % 10
    with EdgeClient(bundle, proxy.address, deadline_ms=1600) as client:
        assert client.infer(image).index == latent
        for count in range(1, 4):
            proxy.freeze()
            prediction = client.infer(image)
            assert prediction.index == latent
            assert prediction.timings.total < 1600
            assert proxy.connections == 1 + count


def test_a_deadline_too_short_for_a_second_connection_costs_one_image(bundle, proxy, image):
    with EdgeClient(bundle, proxy.address, deadline_ms=290) as client:
        client.infer(image)
        proxy.freeze()
        with pytest.raises(Unavailable):
            client.infer(image)
        client.infer(image)
    assert proxy.connections == 2


def test_a_first_connection_that_is_silent_gets_a_second_one(bundle, proxy, image):
    proxy._frozen = 1
    with EdgeClient(bundle, proxy.address, deadline_ms=1600) as client:
        client.connect()
        client.infer(image)
    assert proxy.connections == 2


def test_a_slow_answer_over_a_live_connection_is_waited_for(bundle, proxy, tail, image):
    with EdgeClient(bundle, proxy.address, deadline_ms=1600) as client:
        client.infer(image)
        tail.seconds = 0.8
        client.infer(image)
        tail.seconds = 3.0
        with pytest.raises(Unavailable):
            client.infer(image)
        tail.seconds = 0.0
        client.infer(image)
    assert proxy.connections == 1
    assert len(tail.requests) == 4


def test_an_outage_that_ends_before_the_deadline_costs_no_image(bundle, tail, image):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    servers = []
    timer = threading.Timer(0.8, lambda: servers.append(serve(tail, port=port)[0]))
    with EdgeClient(bundle, f"127.0.0.1:{port}", deadline_ms=1000) as client:
        timer.start()
        client.infer(image)
    timer.join()
    servers[0].stop(0).wait()


def test_the_last_attempt_is_near_the_end_of_the_deadline(bundle, image, monkeypatch):
    times = []
    original = ServerChannel.infer
    monkeypatch.setattr(ServerChannel, "infer", lambda *args: times.append(time.monotonic()) or original(*args))
    with EdgeClient(bundle, "127.0.0.1:9", deadline_ms=1000) as client:
        start = time.monotonic()
        with pytest.raises(Unavailable, match=r"within 1000 ms: UNAVAILABLE: .*Connection refused"):
            client.infer(image)
    assert times[-1] - start >= 0.94


def test_a_full_queue_does_not_cost_connections(bundle, server, tail, image):
    """As a Triton whose queue is full says UNAVAILABLE, to many devices at once."""
    tail.refusals = [grpc.StatusCode.UNAVAILABLE] * 18
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(EdgeClient(bundle, server, deadline_ms=9000)) for _ in range(6)]
        threads = [threading.Thread(target=client.infer, args=(image,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(tail.requests) == 24
    assert len(tail.peers) == 6
