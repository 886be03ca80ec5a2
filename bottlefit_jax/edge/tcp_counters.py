"""The bytes and segments that TCP sent over one connection, as Linux counts them."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

# Offsets in struct tcp_info of linux/tcp.h, which grows only at its end; bytes_sent came with Linux 4.19.
_SEGMENTS_OUT, _BYTES_SENT, _SIZE = 136, 200, 208


class Sent(NamedTuple):
    """TCP's counters since the connection began.

    Attributes:
        bytes: payload of TCP, resent bytes included.
        segments: acknowledgements included.
        connection: differs between connections.
    """

    bytes: int
    segments: int
    connection: int


@dataclass
class Span:
    """What one call sent.

    Attributes:
        before, after: the counters; None where they are unknown, and where another call used the connection too.
    """

    before: Sent | None = None
    after: Sent | None = None


class Meter:
    """Reads the counters of the connection to `port` that this process opens after the meter was made.

    gRPC does not expose its socket, so the meter looks for it among the process's open files, by its peer's port. Where
    several match, as when two clients connect to one server at the same moment, the meter has no counters.
    """

    _taken: ClassVar[set[int]] = set()  # inodes of the sockets that belong to a meter

    def __init__(self, port: int):
        self._port = port
        self._foreign = {inode for _, inode in _open_sockets()}
        self._socket: tuple[int, int] | None = None  # file descriptor and inode
        self._lock = threading.Lock()
        self._begun = self._running = 0  # calls
        self._is_closed = False

    @contextlib.contextmanager
    def span(self) -> Iterator[Span]:
        """Count what a call sends, from any thread. The counters are complete after the block."""
        with self._lock:
            self._begun, self._running = self._begun + 1, self._running + 1
            number, alone = self._begun, self._running == 1
            span = Span(self.sent() if alone else None)
        try:
            yield span
            with self._lock:
                if not alone or self._begun != number:
                    span.before = None
                    return
                span.after = self.sent()
                if span.after is None:  # gRPC has reconnected
                    self.find()
                    span.after = self.sent()
        finally:
            with self._lock:
                self._running -= 1

    def find(self) -> None:
        """Look for the connection. Call this after an answer came over it, when it certainly exists."""
        if self._is_closed or self._is_open():
            return
        self._let_go()
        others = self._foreign | Meter._taken
        matches = [(fd, inode) for fd, inode in _open_sockets() if inode not in others and _port(fd) == self._port]
        if len(matches) == 1:
            self._socket = matches[0]
            Meter._taken.add(matches[0][1])

    def sent(self) -> Sent | None:
        """Return the counters, or None where they are unknown."""
        if self._socket is None or not self._is_open() or not hasattr(socket, "TCP_INFO"):
            return None
        info = _query(self._socket[0], _tcp_info)
        if info is None or len(info) < _SIZE:
            return None
        (sent,) = struct.unpack_from("=Q", info, _BYTES_SENT)
        (segments,) = struct.unpack_from("=I", info, _SEGMENTS_OUT)
        return Sent(sent, segments, self._socket[1])

    def close(self) -> None:
        """Let go of the connection; there are no more counters."""
        self._is_closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._socket is not None:
            Meter._taken.discard(self._socket[1])
        self._socket = None

    def _is_open(self) -> bool:
        return self._socket is not None and _inode(self._socket[0]) == self._socket[1]


def _open_sockets() -> Iterator[tuple[int, int]]:
    """Yield file descriptor and inode of every socket of this process; nothing where there is no /proc."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return
    for name in names:
        inode = _inode(int(name))
        if inode is not None:
            yield int(name), inode


def _inode(descriptor: int) -> int | None:
    """Return the inode of an open socket, else None."""
    try:
        kind, _, inode = os.readlink(f"/proc/self/fd/{descriptor}").partition(":[")
    except OSError:
        return None
    return int(inode.rstrip("]")) if kind == "socket" else None


def _port(descriptor: int) -> int | None:
    """Return the peer's TCP port, else None."""
    peer = _query(descriptor, _stream_peer)
    return peer[1] if isinstance(peer, tuple) and len(peer) >= 2 else None


def _tcp_info(connection: socket.socket) -> bytes:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)


def _stream_peer(connection: socket.socket) -> Any:
    is_stream = connection.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    is_ip = connection.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) in (socket.AF_INET, socket.AF_INET6)
    return connection.getpeername() if is_stream and is_ip else None


def _query(descriptor: int, function: Callable[[socket.socket], Any]) -> Any:
    """Return `function` of a socket that gRPC owns and that stays open; None where it is closed or has no answer."""
    try:
        # naming family and type, which no function uses, saves the system calls that would look them up
        borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    except OSError:
        return None
    try:
        return function(borrowed)
    except OSError:
        return None
    finally:
        borrowed.detach()
