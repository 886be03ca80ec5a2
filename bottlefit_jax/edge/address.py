"""The server's address, and which machines count as near."""

import ipaddress
from dataclasses import dataclass

from bottlefit_jax.errors import UserError


@dataclass(frozen=True)
class Address:
    """A host (an IPv6 address without its brackets) and a port; `text` is what was given."""

    text: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        address = _ip(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine or in its own network, where no proxy is needed."""
        address = _ip(self.host)
        if address is not None:
            return not address.is_global
        return "." not in self.host or self.host.endswith((".local", ".localhost"))


def parse_server(server: str) -> Address:
    """Read HOST:PORT, where an IPv6 address stands in brackets.

    Raises:
        UserError: it is something else.
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
