"""A link of a given rate and delay in this process: a TCP proxy on loopback, for where `tc netem` cannot be used.

It has no loss, no slow start and no packet headers: a byte of TCP payload is a byte of the link. Latencies are those
of a connection whose congestion window is open, so they are a little kind to large requests.
"""

import collections
import contextlib
import socket
import threading
import time
from collections.abc import Sequence

from bottlefit_jax.errors import UserError

CHUNK = 16_384  # bytes read at once
WINDOW = 1 << 20  # bytes on the way in one direction; then the sender waits, as behind a full socket buffer
CONNECT_SECONDS = 5.0


class Direction:
    """One way of the link, shared by all connections: a byte waits for those before it, then takes 1 / rate.

    Attributes:
        sent: bytes that have been through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0  # when the last byte that was given has left
        self._seconds_per_byte = 0.0
        self._delay = 0.0
        self.sent = 0

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Set the rate in Mbit/s and the one-way latency in ms, from the next byte on."""
        with self._lock:
            self._seconds_per_byte = 8e-6 / rate_mbit
            self._delay = delay_ms / 1e3

    def due(self, size: int) -> float:
        """Put `size` bytes on the link; return when the last one arrives, in seconds of time.monotonic."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size * self._seconds_per_byte
            self.sent += size
            return self._free + self._delay


class Pipe:
    """Carries bytes from one socket to another along a Direction, on two threads of its own."""

    def __init__(self, source: socket.socket, target: socket.socket, direction: Direction):
        self._source, self._target, self._direction = source, target, direction
        self._queue: collections.deque[tuple[float, bytes]] = collections.deque()
        self._waiting = 0
        self._ended = False
        self._changed = threading.Condition()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self._take, self._give)]
        for thread in self.threads:
            thread.start()

    def _take(self) -> None:
        """Read what the sender wrote; an empty chunk is its end."""
        data = b"more"
        while data:
            try:
                data = self._source.recv(CHUNK)
            except OSError:
                data = b""
            due = self._direction.due(len(data))
            with self._changed:
                self._queue.append((due, data))
                self._waiting += len(data)
                self._changed.notify_all()
                while self._waiting > WINDOW and not self._ended:
                    self._changed.wait()

    def _give(self) -> None:
        """Write every chunk when it is due. Times are absolute, so that a late wake-up delays nothing after it."""
        data = b"more"
        while data:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                due, data = self._queue.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if data:
                    self._target.sendall(data)
                else:
                    self._target.shutdown(socket.SHUT_WR)
            except OSError:  # the receiver is gone: so is the sender's use of this connection
                data = b""
                _close(self._source)
            with self._changed:
                self._waiting -= len(data)
                self._ended = not data
                self._changed.notify_all()


class ProcessLink:
    """Servers on loopback, each behind a proxy that all bytes to and from it pass. A context: it ends all at its end.

    Attributes:
        kind: "process".
        host: where servers are to listen.
        counts: what `sent` counts, in words.
    """

    kind = "process"
    host = "127.0.0.1"
    counts = "bytes of TCP payload from the device, counted by the proxy"

    def __init__(self) -> None:
        self._up, self._down = Direction(), Direction()
        self._listeners: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> "ProcessLink":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            left = [*self._listeners, *self._open]
            self._listeners.clear()
            self._open.clear()
        for one in left:
            _close(one)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on the server's side of the link: itself."""
        return list(argv)

    def free_port(self) -> int:
        """A port that a server may take."""
        with socket.create_server((self.host, 0)) as found:
            return found.getsockname()[1]

    def through(self, port: int) -> tuple[str, int]:
        """Where a client reaches the server at `port` over the link."""
        listener = socket.create_server((self.host, 0))
        with self._lock:
            self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()
        return self.host, listener.getsockname()[1]

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Set Mbit/s, and ms that are added in each direction.

        Raises:
            UserError: a rate that is not above 0, or a delay below 0.
        """
        check_shape(rate_mbit, delay_ms)
        for direction in (self._up, self._down):
            direction.shape(rate_mbit, delay_ms)

    def sent(self) -> int:
        """Bytes that the device has sent so far."""
        return self._up.sent

    def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # closed: the end
                return
            try:
                far = socket.create_connection((self.host, port), CONNECT_SECONDS)
            except OSError:  # no server: the client sees its connection closed and tries again
                near.close()
                continue
            far.settimeout(None)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        pipes = [Pipe(near, far, self._up), Pipe(far, near, self._down)]
        for thread in (thread for pipe in pipes for thread in pipe.threads):
            thread.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()


class DirectLink:
    """The link to servers elsewhere, as it is: nothing shapes it, and nobody counts its bytes.

    Attributes:
        kind: "direct".
        counts: what is known of the bytes instead, in words.
    """

    kind = "direct"
    counts = "the latent or the JPEG alone, without headers, which nobody counts on this link"

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Refuses: this link is what it is.

        Raises:
            UserError: always.
        """
        raise UserError(f"the link to a server elsewhere cannot be shaped to {rate_mbit:g} Mbit/s and {delay_ms:g} ms")

    def sent(self) -> None:
        """Return None: nobody counts."""


def check_shape(rate_mbit: float, delay_ms: float) -> None:
    """Raise UserError for a link that cannot be."""
    if not 0 < rate_mbit <= 100_000:
        raise UserError(f"a rate of {rate_mbit:g} Mbit/s; it must be above 0 and at most 100,000")
    if not 0 <= delay_ms <= 60_000:
        raise UserError(f"a delay of {delay_ms:g} ms; it must be 0 to 60,000")


def _close(one: socket.socket) -> None:
    """Close a socket that another thread may be waiting on, which shutdown wakes."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()
