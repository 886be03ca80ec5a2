"""The server's address: HOST:PORT, and whether it is on this machine or in this network."""

import ipaddress
from dataclasses import dataclass

from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.authorization import is_loopback


@dataclass(frozen=True)
class Address:
    """The address of a server.

    Attributes:
        text: as it was given, HOST:PORT.
        host: a name or an IP address; IPv6 without brackets.
        port: 1 to 65535.
    """

    text: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(self.host)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine or in this network, so that no proxy is needed."""
        address = _ip(self.host)
        if address is not None:
            return not address.is_global
        return "." not in self.host or self.host.endswith((".local", ".localhost"))


def parse_server(server: str) -> Address:
    """Parse HOST:PORT; an IPv6 address is in brackets.

    Raises:
        UserError: `server` is something else.
    """
    host, colon, port = server.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise UserError(f"the server {server!r} must be HOST:PORT, such as localhost:8001")
    if ":" in host and not bracketed:
        raise UserError(f"the server {server!r} must be HOST:PORT with an IPv6 address in brackets, [::1]:8001")
    return Address(server, host.strip("[]"), int(port))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
