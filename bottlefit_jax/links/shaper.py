"""Which shaped link is used: `tc netem` where it works, else a proxy in this process; both are a ShapedLink."""

from collections.abc import Iterator
from contextlib import contextmanager

from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.links.link import ShapedLink
from bottlefit_jax.links.netem import NetemLink
from bottlefit_jax.links.proxy import ProcessLink

KINDS = ("netem", "process")


@contextmanager
def open_link(kind: str | None = None) -> Iterator[tuple[ShapedLink, str]]:
    """Open a shaped link and remove it at the end of the context.

    Args:
        kind: one of KINDS; None takes netem where it works, else process.

    Yields:
        The link, and in words how it is shaped.

    Raises:
        UserError: `kind` is netem, which does not work here.
    """
    reason = "asked for"
    if kind != "process":
        link = NetemLink()
        try:
            link.__enter__()
        except BottleFitError as error:
            if kind == "netem":
                raise
            reason = f"tc netem does not work here: {error}"
        else:
            try:
                yield link, "`tc netem` on both ends of a pair of virtual network cards"
            finally:
                link.close()
            return
    with ProcessLink() as link:
        yield link, f"a proxy in the measuring process, no slow start, no loss, no packet headers ({reason})"
