"""A server beside the program that starts it."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from bottlefit_jax.serve.options import ServerOptions
from bottlefit_jax.serve.server import Server

T = TypeVar("T")


@contextlib.contextmanager
def serve_in_thread(options: ServerOptions, *, grace: float = 10.0) -> Iterator[Server]:
    """Serve in a thread of its own while the `with` block runs.

        with serve_in_thread(ServerOptions(bundles=["bundles/digits"])) as server:
            print(server.address)

    Args:
        options: of the server.
        grace: seconds that the last requests may take at the end.

    Raises:
        UserError: an option or a bundle is invalid, or the port is taken.
    """
    server = run_in_loop(Server.start(options))
    try:
        yield server
    finally:
        run_in_loop(server.stop(grace))


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the event loop of the servers of this process, and wait for its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, event_loop()).result()


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """Return the one event loop of all servers, started when it is first needed.

    grpc.aio expects one event loop in a process.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="serve", daemon=True).start()
    return loop
