"""What leaves the machine: the bytes and segments that TCP sent over one connection, as Linux counts them."""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Offsets in struct tcp_info of linux/tcp.h, which only grows at its end; bytes_sent is there since Linux 4.19.
_SEGMENTS_OUT, _BYTES_SENT, _NEEDED = 136, 200, 208


class Sent(NamedTuple):
    """Since the connection began. `bytes`: above TCP, resent ones included. `segments`: acknowledgements included."""

    bytes: int
    segments: int


class Meter:
    """Watches the connection to `port` that this process opens after the meter was made.

    gRPC does not show its socket, so it is found among the process's open files by its peer's port. Of two
    connections that are opened to one server at the same moment, either may be taken for the other.
    """

    def __init__(self, port: int):
        self._port = port
        self._foreign = {inode for _, inode in _open_sockets()}
        self._socket: tuple[int, int] | None = None  # file descriptor and inode

    def connection(self) -> int | None:
        """A number that changes when another connection takes the place of this one; None where it is unknown."""
        if self._socket is None or _inode(self._socket[0]) != self._socket[1]:
            ours = (one for one in _open_sockets() if one[1] not in self._foreign and _port(one[0]) == self._port)
            self._socket = next(ours, None)
        return None if self._socket is None else self._socket[1]

    def sent(self) -> Sent | None:
        """What went out so far, or None where the system does not tell."""
        if self.connection() is None or self._socket is None or not hasattr(socket, "TCP_INFO"):
            return None
        info = _ask(self._socket[0], lambda found: found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))
        if info is None or len(info) < _NEEDED:
            return None
        return Sent(struct.unpack_from("=Q", info, _BYTES_SENT)[0], struct.unpack_from("=I", info, _SEGMENTS_OUT)[0])


def _open_sockets() -> Iterator[tuple[int, int]]:
    """File descriptor and inode of every socket of this process; none where there is no /proc."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return
    for name in names:
        inode = _inode(int(name))
        if inode is not None:
            yield int(name), inode


def _inode(descriptor: int) -> int | None:
    """Of an open socket, else None."""
    try:
        kind, _, inode = os.readlink(f"/proc/self/fd/{descriptor}").partition(":[")
    except OSError:
        return None
    return int(inode.rstrip("]")) if kind == "socket" else None


def _port(descriptor: int) -> int | None:
    """The peer's TCP port, else None."""
    peer = _ask(descriptor, lambda found: found.getpeername() if found.type == socket.SOCK_STREAM else None)
    return peer[1] if isinstance(peer, tuple) and len(peer) >= 2 else None


def _ask(descriptor: int, question: Callable[[socket.socket], Any]) -> Any:
    """Asks a socket that is another's and stays open; None where it is closed or cannot answer."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        return question(found)
    except OSError:
        return None
    finally:
        found.detach()
