import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.links.proxy import ProcessLink
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
    """A server on the far side that takes and gives as many bytes as it is told, over one connection."""

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
            self.connection = socket.create_connection(self.address, timeout=30)
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


def test_a_transfer_takes_what_rate_and_delay_say(peer_over):
    with ProcessLink() as link:
        peer = peer_over(link)
        link.shape(8, 20)
        for seconds in peer.times(100_000):
            assert seconds == pytest.approx(0.1 + 2 * 0.02, rel=0.25)
        assert link.sent() == 100_000 + 8 + 1


def test_without_delay_a_fast_link_is_fast(peer_over):
    with ProcessLink() as link:
        peer = peer_over(link)
        link.shape(10_000, 0)
        assert min(peer.times(1000)) < 0.1


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
        with socket.create_connection(peer.address, timeout=10) as one:
            one.sendall((10**9).to_bytes(8, "big"))
            time.sleep(0.1)
            peer.process.kill()
            assert one.recv(1) == b""
        with socket.create_connection(peer.address, timeout=10) as one:
            assert one.recv(1) == b""


def test_a_link_that_ends_leaves_no_thread(peer_over):
    with ProcessLink() as link:
        peer = peer_over(link)
        link.shape(100, 0)
        before = threading.active_count()
        with socket.create_connection(peer.address, timeout=10) as one:
            one.sendall((10**9).to_bytes(8, "big"))
            time.sleep(0.1)
            assert threading.active_count() > before
    until = time.monotonic() + 10
    while threading.active_count() >= before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() < before


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
        wanted = size * 8e-6 / rate + 2 * delay / 1e3
        # the median of three: another process may have the processor for a while
        for found in zip(*(peer.times(size) for _ in range(3)), strict=True):
            assert sorted(found)[1] == pytest.approx(wanted, rel=0.1)
        link.shape(rate, 2 * delay)
        round_trips = [peer.times(1)[1] for _ in range(5)]
        assert sorted(round_trips)[2] == pytest.approx(4 * delay / 1e3 + 2 * 8e-6 / rate, rel=0.1)


def needs_netem():
    try:
        with open_link("netem"):
            pass
    except UserError as error:
        pytest.skip(str(error))
