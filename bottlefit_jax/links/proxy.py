"""A link of a given rate and delay, or of a trace, in this process: a TCP proxy on loopback.

It stands in for `tc netem` where that does not work, and replays traces.

It has no loss, no slow start and no packet headers: a byte of TCP payload is a byte of the link. Latencies are those of
a connection whose congestion window is open, so that large requests look a little faster than they are.
"""

import collections
import contextlib
import socket
import threading
import time
from collections.abc import Sequence

from bottlefit_jax.links.link import check_shape
from bottlefit_jax.links.world import Carrier

CHUNK = 16_384  # bytes read at once
WINDOW = 1 << 20  # bytes under way in one direction; above it the sender waits, as for a full socket buffer
CONNECT_SECONDS = 5.0


class Direction:
    """One direction of the link, shared by all connections: a byte waits for those before it, then takes 1 / rate.

    Attributes:
        sent: bytes so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0  # when the last byte put on the link has left
        self._seconds_per_byte = 0.0
        self._trace: tuple[Carrier, float] | None = None  # and when it began
        self._delay = 0.0
        self.sent = 0

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Set the rate in Mbit/s and the one-way delay in ms, from the next byte on."""
        with self._lock:
            self._seconds_per_byte, self._trace = 8e-6 / rate_mbit, None
            self._delay = delay_ms / 1e3

    def follow(self, trace: Carrier, delay_ms: float, since: float) -> None:
        """Take the rate from a trace that begins at `since`, seconds of time.monotonic, on a link that is empty."""
        with self._lock:
            self._trace, self._free, self._delay = (trace, since), since, delay_ms / 1e3

    def due(self, size: int) -> float:
        """Put `size` bytes on the link and return when the last one arrives, in seconds of time.monotonic."""
        with self._lock:
            begins = max(self._free, time.monotonic())
            if self._trace is None:
                self._free = begins + size * self._seconds_per_byte
            else:
                trace, since = self._trace
                self._free = since + trace.arrives(begins - since, size)
            self.sent += size
            return self._free + self._delay


class Pipe:
    """Forwards bytes from one socket to another along a Direction, on two threads."""

    def __init__(self, source: socket.socket, target: socket.socket, direction: Direction):
        self._source, self._target, self._direction = source, target, direction
        self._queue: collections.deque[tuple[float, bytes]] = collections.deque()
        self._waiting = 0
        self._ended = False
        self._changed = threading.Condition()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self._receive, self._send)]
        for thread in self.threads:
            thread.start()

    def _receive(self) -> None:
        """Read what the sender wrote; an empty chunk is the end."""
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

    def _send(self) -> None:
        """Write every chunk when it is due. Due times are absolute, so that a late wake-up delays no later chunk."""
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
            except OSError:  # the receiver has closed: close the sender's side, too
                data = b""
                _close(self._source)
            with self._changed:
                self._waiting -= len(data)
                self._ended = not data
                self._changed.notify_all()


class ProcessLink:
    """Servers on loopback, each behind a proxy that all its bytes pass. A ShapedLink; a context.

    Attributes:
        kind: "process".
        host: as of a ShapedLink.
        counts: as of a Link.
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
        self.close()

    def close(self) -> None:
        """Close all proxies and their connections."""
        with self._lock:
            sockets = [*self._listeners, *self._open]
            self._listeners.clear()
            self._open.clear()
        for each in sockets:
            _close(each)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return `argv`: the servers' side is this machine."""
        return list(argv)

    def free_port(self) -> int:
        """Return a port that a server can listen on."""
        with socket.create_server((self.host, 0)) as server:
            return server.getsockname()[1]

    def through(self, port: int) -> tuple[str, int]:
        """Return host and port by which a client reaches the server at `port` over the link."""
        listener = socket.create_server((self.host, 0))
        with self._lock:
            self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()
        return self.host, listener.getsockname()[1]

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Set the rate in Mbit/s, and the delay in ms that is added in each direction.

        Raises:
            UserError: the rate or the delay is out of range.
        """
        check_shape(rate_mbit, delay_ms)
        for direction in (self._up, self._down):
            direction.shape(rate_mbit, delay_ms)

    def follow(self, trace: Carrier, delay_ms: float) -> float:
        """Take the rates of both directions from a trace, from now on; what is under way is forgotten.

        Args:
            trace: a Trace, or what carries as one does; it has no end.
            delay_ms: that is added in each direction.

        Returns:
            When it begins, seconds of time.monotonic.

        Raises:
            UserError: the delay is out of range.
        """
        check_shape(1, delay_ms)
        since = time.monotonic()
        for direction in (self._up, self._down):
            direction.follow(trace, delay_ms, since)
        return since

    def sent(self) -> int:
        """Return the bytes that the device has sent."""
        return self._up.sent

    def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # the link was closed
                return
            try:
                far = socket.create_connection((self.host, port), CONNECT_SECONDS)
            except OSError:  # no server: the client's connection is closed, and it tries again
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        pipes = [Pipe(near, far, self._up), Pipe(far, near, self._down)]
        for thread in (thread for pipe in pipes for thread in pipe.threads):
            thread.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()


def _close(connection: socket.socket) -> None:
    """Close a socket; shutdown wakes a thread that waits on it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        connection.close()
