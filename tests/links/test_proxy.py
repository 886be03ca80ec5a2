import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.links import proxy
from bottlefit_jax.links.proxy import Direction, ProcessLink
from bottlefit_jax.links.shaper import open_link

PEER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)

def take(peer, size):
    while size:
        got = len(peer.recv(min(size, 1 << 16)))
        if not got:
            return False
        size -= got
    return True

while True:
    peer, _ = listener.accept()
    while (header := peer.recv(8, socket.MSG_WAITALL)) and take(peer, size := int.from_bytes(header, "big")):
        peer.sendall(b"k")
        take(peer, 1)
        peer.sendall(bytes(size))
    peer.close()
"""


class Peer:
    """A server on the far side that takes and gives as many bytes as the client asks for, over one connection."""

    def __init__(self, link):
        port = link.free_port()
        argv = link.command([sys.executable, "-c", PEER, link.host, str(port)])
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        self.process.stdout.readline()
        self.address = link.through(port)
        self.connection = None

    def times(self, size):
        """Seconds in which `size` bytes went there and one came back, and the other way round."""
        if self.connection is None:
            self.connection = socket.create_connection(self.address, timeout=60)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        self.connection.sendall(size.to_bytes(8, "big") + bytes(size))
        assert self.connection.recv(1) == b"k"
        up = time.perf_counter() - began
        began = time.perf_counter()
        self.connection.sendall(b"g")
        left = size
        while left:
            left -= len(self.connection.recv(left)) or pytest.fail(f"{left} bytes are missing")
        return up, time.perf_counter() - began

    def close(self):
        if self.connection is not None:
            self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def peer_over():
    peers = []

    def start(link):
        peers.append(Peer(link))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


def test_a_byte_is_due_after_those_before_it_and_the_delay(monkeypatch):
    now = 100.0
    monkeypatch.setattr(proxy, "time", types.SimpleNamespace(monotonic=lambda: now))
    direction = Direction()
    direction.shape(8, 20)
    assert direction.due(100_000) == pytest.approx(100 + 0.1 + 0.02)
    assert direction.due(50_000) == pytest.approx(100 + 0.1 + 0.05 + 0.02)
    now = 200.0
    assert direction.due(1000) == pytest.approx(200 + 0.001 + 0.02)
    direction.shape(10_000, 0)
    now = 300.0
    assert direction.due(1000) == pytest.approx(300 + 8e-7)
    assert direction.sent == 152_000


def test_no_transfer_is_faster_than_rate_and_delay_say(peer_over):
    with ProcessLink() as link:
        peer = peer_over(link)
        link.shape(8, 20)
        assert min(peer.times(100_000)) >= 0.1 + 2 * 0.02
        assert link.sent() == 100_000 + 8 + 1


def test_connections_share_one_link(peer_over):
    with ProcessLink() as link:
        peers = [peer_over(link) for _ in range(2)]
        link.shape(8, 0)
        began = time.perf_counter()
        threads = [threading.Thread(target=peer.times, args=(100_000,)) for peer in peers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.perf_counter() - began > 0.9 * (4 * 0.1 - 0.1)


def test_a_server_that_ends_closes_the_connection(peer_over):
    with ProcessLink() as link:
        peer = peer_over(link)
        link.shape(100, 1)
        with socket.create_connection(peer.address, timeout=60) as one:
            one.sendall((10**9).to_bytes(8, "big"))
            until(lambda: link.sent() == 8)
            peer.process.kill()
            assert one.recv(1) == b""
        with socket.create_connection(peer.address, timeout=60) as one:
            assert one.recv(1) == b""


def test_a_link_that_ends_leaves_no_thread(peer_over):
    with ProcessLink() as link:
        peer = peer_over(link)
        link.shape(100, 0)
        before = threading.active_count()
        with socket.create_connection(peer.address, timeout=60) as one:
            one.sendall((10**9).to_bytes(8, "big"))
            until(lambda: threading.active_count() > before)
    until(lambda: threading.active_count() < before)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize(("rate", "delay"), [(0, 5), (-1, 5), (float("nan"), 5), (1, -1), (1, float("inf"))])
def test_a_link_that_cannot_be_is_refused(rate, delay):
    with ProcessLink() as link, pytest.raises(UserError, match="it must be"):
        link.shape(rate, delay)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [5, 40])
@pytest.mark.parametrize(
    ("rate", "size"), [(0.25, 10_000), (1, 40_000), (5, 300_000), (20, 1_000_000), (100, 5_000_000)]
)
@pytest.mark.parametrize("kind", ["process", "netem"])
def test_the_link_keeps_its_rate_and_delay_within_ten_percent(kind, rate, size, delay, peer_over):
    if kind == "netem":
        needs_netem()
    with open_link(kind) as (link, _):
        peer = peer_over(link)
        link.shape(rate, delay)
        peer.times(size)  # opens TCP's window
        assert_within_ten_percent(lambda: peer.times(size), size * 8e-6 / rate + 2 * delay / 1e3)
        link.shape(rate, 2 * delay)
        assert_within_ten_percent(lambda: peer.times(1)[1:], 4 * delay / 1e3 + 2 * 8e-6 / rate)


def assert_within_ten_percent(measure, wanted):
    """No measurement is faster than the link, and of each kind one of many is not slower: others have the processor."""
    fastest = [float("inf")]
    for _ in range(40):
        fastest = [min(pair) for pair in zip(itertools.cycle(fastest), measure())]
        assert min(fastest) >= 0.9 * wanted
        if max(fastest) <= 1.1 * wanted:
            return
    pytest.fail(f"the fastest of 40 took {fastest} s instead of {wanted} s")


def needs_netem():
    try:
        with open_link("netem"):
            pass
    except UserError as error:
        pytest.skip(str(error))
