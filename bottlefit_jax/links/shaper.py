"""Which link is used: `tc netem` where it can be had, a proxy in this process elsewhere. All have one interface."""

from collections.abc import Iterator
from contextlib import contextmanager

from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.links.netem import NetemLink
from bottlefit_jax.links.proxy import DirectLink, ProcessLink

Link = NetemLink | ProcessLink  # in front of servers on this machine
AnyLink = Link | DirectLink
KINDS = ("netem", "process")


@contextmanager
def open_link(kind: str | None = None) -> Iterator[tuple[Link, str]]:
    """A link, removed at the end, and in words how it is shaped.

    Args:
        kind: of KINDS; None takes netem, or process where netem cannot be had.

    Raises:
        UserError: `kind` is netem, which cannot be had here.
    """
    why = "asked for"
    if kind != "process":
        link = NetemLink()
        try:
            link.__enter__()
        except BottleFitError as error:
            if kind == "netem":
                raise
            why = f"tc netem cannot be used here: {error}"
        else:
            try:
                yield link, "`tc netem` on both ends of a pair of virtual network cards"
            finally:
                link.__exit__()
            return
    with ProcessLink() as link:
        yield link, f"a proxy in the measuring process, no slow start, no loss, no packet headers ({why})"
