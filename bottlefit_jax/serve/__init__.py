"""The edge server: tails of bundles behind the Open Inference Protocol. `python -m bottlefit_jax.serve --help`.

    from bottlefit_jax.serve import ServerOptions, serve_in_thread

    with serve_in_thread(ServerOptions(bundles=["bundles/digits"])) as server:
        print(server.address)

Within an event loop it is `server = await Server.start(options)` and `await server.stop()`. The methods are in
`methods.py`; requests are checked in `bottlefit_jax/protocol/request_checks.py`.
"""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.serve.log import JsonFormatter
    from bottlefit_jax.serve.options import ServerOptions
    from bottlefit_jax.serve.server import Server
    from bottlefit_jax.serve.thread import serve_in_thread

__all__ = ["JsonFormatter", "Server", "ServerOptions", "serve_in_thread"]

__getattr__ = exports(
    __name__,
    {
        "log": ("JsonFormatter",),
        "options": ("ServerOptions",),
        "server": ("Server",),
        "thread": ("serve_in_thread",),
    },
)
