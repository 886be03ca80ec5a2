"""HTTP for monitoring: GET /metrics, and GET /healthz for probes."""

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from bottlefit_jax.errors import UserError


class HttpServer:
    """Serves /metrics and /healthz from its construction to `stop`.

    Args:
        host: the address to listen on.
        port: 0 is a free one.
        registry: of the metrics.
        ready: whether /healthz answers 200.

    Raises:
        UserError: the port is taken, or the address does not belong to this machine.
    """

    def __init__(self, host: str, port: int, *, registry: CollectorRegistry, ready: Callable[[], bool]):
        metrics = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return metrics(environ, start_response)
            if path != "/healthz":
                return _text(start_response, "404 Not Found", "there are /metrics and /healthz")
            if environ["REQUEST_METHOD"] != "GET":
                return _text(start_response, "405 Method Not Allowed", "use GET")
            if not ready():
                return _text(start_response, "503 Service Unavailable", "shutting down")
            return _text(start_response, "200 OK", "ok")

        server_class = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host.strip("[]"), port, app, server_class, _Handler)
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore it: a peer that closed its connection is no event."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds for the request to arrive, so that a silent peer does not hold a thread

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""


def _text(start_response: Callable[..., Any], status: str, text: str) -> list[bytes]:
    body = f"{text}\n".encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
