"""/metrics and /healthz over HTTP."""

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.http_server import HttpServer


@pytest.fixture
def server():
    registry = CollectorRegistry()
    Counter("things", "Things", registry=registry).inc(3)
    ready = [True]
    found = HttpServer("127.0.0.1", 0, registry=registry, ready=lambda: ready[0])
    found.set_ready = lambda value: ready.__setitem__(0, value)
    yield found
    found.stop()


def get(server, path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_each_path_answers_for_itself(server):
    status, text = get(server, "/metrics")
    assert (status, "things_total 3.0" in text) == (200, True)
    assert get(server, "/metrics?name%5B%5D=things_total")[0] == 200
    assert get(server, "/healthz") == (200, "ok\n")
    for path in ("/", "/metricsx", "/metrics/", "/favicon.ico", "/healthz/x", "/etc/passwd"):
        assert get(server, path) == (404, "there are /metrics and /healthz\n"), path
    assert get(server, "/healthz", "POST")[0] == get(server, "/metrics", "POST")[0] == 405


def test_a_server_that_stops_is_not_healthy(server):
    server.set_ready(False)
    assert get(server, "/healthz") == (503, "shutting down\n")
    assert get(server, "/metrics")[0] == 200


def test_a_silent_peer_holds_nobody_up(server):
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.sendall(b"GET /metr")
        assert get(server, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_one_line(server):
    with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{server.port}: Address already in use"):
        HttpServer("127.0.0.1", server.port, registry=CollectorRegistry(), ready=lambda: True)
