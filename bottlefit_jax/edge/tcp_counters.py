"""What leaves the machine: the bytes and segments that TCP sent over one connection, as Linux counts them."""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

# Offsets in struct tcp_info of linux/tcp.h, which only grows at its end; bytes_sent is there since Linux 4.19.
_SEGMENTS_OUT, _BYTES_SENT, _NEEDED = 136, 200, 208


class Sent(NamedTuple):
    """Since the connection began. `bytes`: above TCP, resent ones included. `segments`: acknowledgements included."""

    bytes: int
    segments: int
    connection: int  # differs between connections


class Meter:
    """Counts what goes out over the connection to `port` that this process opens after the meter was made.

    gRPC does not show its socket, so it is found among the process's open files by its peer's port. Where several
    could be it, as when two clients connect to one server at the same moment, nothing is counted.
    """

    _taken: ClassVar[set[int]] = set()  # inodes of the sockets that a meter counts

    def __init__(self, port: int):
        self._port = port
        self._foreign = {inode for _, inode in _open_sockets()}
        self._socket: tuple[int, int] | None = None  # file descriptor and inode

    def find(self) -> None:
        """Look for the connection; to be called when an answer came over it, so that it is there."""
        if self._is_open():
            return
        self.close()
        others = self._foreign | Meter._taken
        ours = [one for one in _open_sockets() if one[1] not in others and _port(one[0]) == self._port]
        if len(ours) == 1:
            self._socket = ours[0]
            Meter._taken.add(ours[0][1])

    def sent(self) -> Sent | None:
        """What went out so far, or None where it is not known."""
        if self._socket is None or not self._is_open() or not hasattr(socket, "TCP_INFO"):
            return None
        info = _ask(self._socket[0], lambda found: found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))
        if info is None or len(info) < _NEEDED:
            return None
        (count,), (segments,) = (
            struct.unpack_from("=Q", info, _BYTES_SENT),
            struct.unpack_from("=I", info, _SEGMENTS_OUT),
        )
        return Sent(count, segments, self._socket[1])

    def close(self) -> None:
        """Stop counting."""
        if self._socket is not None:
            Meter._taken.discard(self._socket[1])
        self._socket = None

    def _is_open(self) -> bool:
        return self._socket is not None and _inode(self._socket[0]) == self._socket[1]


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
