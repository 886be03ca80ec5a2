"""What a link between device and servers is, whoever shapes it, and the link that nothing shapes."""

from collections.abc import Sequence
from typing import Protocol

from bottlefit_jax.errors import UserError

MAX_RATE_MBIT, MAX_DELAY_MS = 100_000, 60_000


class Link(Protocol):
    """A link that requests and answers go over.

    Attributes:
        kind: one word.
        counts: what `sent` counts, in words.
    """

    kind: str
    counts: str

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Set the rate in Mbit/s, and the delay in ms that is added in each direction.

        Raises:
            UserError: the link cannot have this rate and delay.
        """
        ...

    def sent(self) -> int | None:
        """Return the bytes that the device has sent; None where they are not counted."""
        ...


class ShapedLink(Link, Protocol):
    """A link on this machine, in front of servers that are started here.

    Attributes:
        host: the address that the servers listen on.
    """

    host: str

    def close(self) -> None:
        """Remove the link."""
        ...

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` on the servers' side of the link."""
        ...

    def free_port(self) -> int:
        """Return a port that a server can listen on."""
        ...

    def through(self, port: int) -> tuple[str, int]:
        """Return host and port by which a client reaches the server at `port` over the link."""
        ...


class DirectLink:
    """The link to servers on another machine: nothing shapes it, and its bytes are not counted.

    Attributes:
        kind: "direct".
        counts: which bytes the report shows instead.
    """

    kind = "direct"
    counts = "the latent or the JPEG alone: the headers are not counted on this link"

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Refuse: this link cannot be shaped.

        Raises:
            UserError: always.
        """
        raise UserError(f"the link to a server elsewhere cannot be shaped to {rate_mbit:g} Mbit/s and {delay_ms:g} ms")

    def sent(self) -> None:
        """Return None: bytes are not counted."""


def check_shape(rate_mbit: float, delay_ms: float) -> None:
    """Raise UserError for a rate or a delay that no link can have."""
    if not 0 < rate_mbit <= MAX_RATE_MBIT:
        raise UserError(f"a rate of {rate_mbit:g} Mbit/s; it must be above 0 and at most {MAX_RATE_MBIT:,}")
    if not 0 <= delay_ms <= MAX_DELAY_MS:
        raise UserError(f"a delay of {delay_ms:g} ms; it must be 0 to {MAX_DELAY_MS:,}")
