"""Faults: what the client does when the server, the network or a certificate is not as it should be."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from bottlefit_jax.edge import connection
from bottlefit_jax.edge.client import EdgeClient, NoAnswer
from bottlefit_jax.errors import UserError
from tests.edge.server import Tail, serve

ROOT = Path(__file__).parents[2]
SLACK = 0.35  # seconds over the deadline on a busy machine


@contextlib.contextmanager
def process(bundle, port=0, seconds=0.0):
    """The server as a process of its own; gives it and its port."""
    command = [sys.executable, "-m", "tests.edge.server", str(bundle), str(port), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, int(running.stdout.readline())
        finally:
            running.kill()


def no_answer(call, *args, deadline):
    """NoAnswer's text, which must come by the deadline (seconds)."""
    start = time.monotonic()
    with pytest.raises(NoAnswer) as caught:
        call(*args)
    assert time.monotonic() - start < deadline + SLACK
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_killed_in_mid_request_and_restarted(bundle, image):
    with contextlib.ExitStack() as stack:
        first, port = stack.enter_context(process(bundle, seconds=1.0))
        client = stack.enter_context(EdgeClient(bundle, f"localhost:{port}", deadline_ms=5000))
        wanted = client.infer(image).index
        threading.Timer(0.4, first.send_signal, [signal.SIGKILL]).start()
        restarted = []
        threading.Timer(0.9, lambda: restarted.append(stack.enter_context(process(bundle, port)))).start()
        start = time.monotonic()
        assert client.infer(image).index == wanted  # in mid-request, so it was sent again
        assert 0.9 < time.monotonic() - start < 5 + SLACK
        assert client.infer(image).index == wanted
        assert restarted


def test_a_server_that_stays_away_is_reported_and_found_again(bundle, image):
    with contextlib.ExitStack() as stack:
        first, port = stack.enter_context(process(bundle))
        client = stack.enter_context(EdgeClient(bundle, f"localhost:{port}", deadline_ms=600))
        wanted = client.infer(image).index
        first.kill()
        first.wait()
        told = no_answer(client.infer, image, deadline=0.6)
        assert told.startswith(f"no answer from localhost:{port} within 600 ms: UNAVAILABLE")
        stack.enter_context(process(bundle, port))
        assert client.infer(image).index == wanted


def test_another_tail_behind_the_same_address_is_found_out(bundle, tail, image):
    server, port = serve(tail)
    with EdgeClient(bundle, f"localhost:{port}") as client:
        client.infer(image)
        server.stop(0).wait()
        other = Tail(json.loads((bundle / "manifest.json").read_text()))
        other.head = "d" * 64
        server, _ = serve(other, port=port)
        with pytest.raises(UserError, match="belongs to another head, dddddddddddd"):
            client.infer(image)
        assert not other.requests
    server.stop(0).wait()


def test_a_reconnect_of_grpcs_own_is_noticed(bundle, server, tail, image):
    with EdgeClient(bundle, server) as client:
        client.infer(image)
        assert client._connection is not None
        client._connection._proved_on = -1  # as if the proof were of another socket
        client.infer(image)
    assert tail.proofs == 2


def test_another_version_makes_it_ask_again(bundle, server, tail, image):
    tail.answer_version = "7"
    with EdgeClient(bundle, server, deadline_ms=400) as client:
        told = no_answer(client.infer, image, deadline=0.4)
        assert "it answers with version 7 of digits, not 3" in told
        assert tail.proofs > 1
        tail.answer_version = None
        client.infer(image)


def test_a_server_that_accepts_and_never_answers(bundle, image):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with EdgeClient(bundle, f"127.0.0.1:{silent.getsockname()[1]}", deadline_ms=400) as client:
            assert "within 400 ms" in no_answer(client.infer, image, deadline=0.4)
            no_answer(client.connect, deadline=0.4)


def test_an_answer_that_takes_too_long_and_the_next_one(bundle, server, tail, image):
    with EdgeClient(bundle, server, deadline_ms=400) as client:
        client.infer(image)
        tail.seconds = 1.0
        no_answer(client.infer, image, deadline=0.4)
        tail.seconds = 0.0
        client.infer(image)


def test_what_may_pass_is_tried_again_with_growing_pauses(bundle, server, tail, image, monkeypatch):
    pauses = []
    monkeypatch.setattr(connection.time, "sleep", lambda seconds: pauses.append(seconds))
    tail.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE] * 3
    with EdgeClient(bundle, server, deadline_ms=60_000) as client:
        client.infer(image)
    assert len(tail.requests) == 7
    pauses = [pause for pause in pauses if pause > 0.02]  # the server, in this process, sleeps 0
    assert len(pauses) == 6
    for pause, longest in zip(pauses, (0.05, 0.1, 0.2, 0.4, 0.8, 1.0), strict=True):
        assert longest / 2 <= pause <= longest


def test_an_overloaded_server_is_reported_by_the_deadline(bundle, server, tail, image):
    tail.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 100
    with EdgeClient(bundle, server, deadline_ms=500) as client:
        assert "RESOURCE_EXHAUSTED: come back later" in no_answer(client.infer, image, deadline=0.5)
    assert len(tail.requests) < 10


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "UNIMPLEMENTED"])
def test_other_statuses_are_told_at_once(bundle, server, tail, image, code):
    tail.refusals = [grpc.StatusCode[code]]
    with EdgeClient(bundle, server) as client:
        with pytest.raises(UserError) as caught:
            client.infer(image)
        assert str(caught.value) == f"{server} answered {code}: come back later"
        assert not isinstance(caught.value, NoAnswer)
    assert len(tail.requests) == 1


def test_a_model_that_is_still_loading_is_waited_for(bundle, server, tail, image):
    tail.ready = False
    with EdgeClient(bundle, server, deadline_ms=400) as client:
        assert "it does not have digits version 3 ready" in no_answer(client.infer, image, deadline=0.4)
    with EdgeClient(bundle, server, deadline_ms=4000) as client:
        threading.Timer(0.2, lambda: setattr(tail, "ready", True)).start()
        client.infer(image)


def test_a_token_is_sent_and_a_wrong_one_is_told(bundle, server, tail, image):
    tail.token = "secret"
    with EdgeClient(bundle, server, token="secret") as client:
        client.infer(image)
    for token in ("wrong", None):
        with EdgeClient(bundle, server, token=token) as client, pytest.raises(UserError) as caught:
            client.infer(image)
        # the server's words without what would steer a terminal
        assert str(caught.value) == f"{server} answered UNAUTHENTICATED: a bearer token is [31mneeded"


def test_a_token_does_not_travel_in_the_clear(bundle):
    with pytest.raises(UserError, match=r"the token would travel to edge.example in the clear: add --tls"):
        EdgeClient(bundle, "edge.example:8001", token="secret")
    EdgeClient(bundle, "edge.example:8001", token="secret", tls=True)
    EdgeClient(bundle, "[::1]:8001", token="secret")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_INFO is Linux's")
@pytest.mark.parametrize("token", [None, "a-token-of-thirty-two-characters"])
def test_framing_costs_at_most_200_bytes_on_a_warm_connection(bundle, server, image, token):
    with EdgeClient(bundle, server, token=token) as client, EdgeClient(bundle, server) as other:
        client.infer(image)
        other.infer(image)  # another connection of this process to the same server does not count
        for _ in range(20):
            sent = client.infer(image).bytes_sent
            assert sent.latent == 29 * 29 * 3
            assert 0 < sent.protocol < 60
            assert sent.transport is not None
            assert sent.transport > 0
            assert sent.total == sent.latent + sent.protocol + sent.transport
            assert sent.total - sent.latent <= 200
            assert sent.segments is not None
            assert 1 <= sent.segments < 10
            other.infer(image)


def test_compression_is_grpcs_and_saves_bytes(bundle, server, tail, image):
    image[:] = 7
    with EdgeClient(bundle, server, compress=True) as client:
        client.connect()
        sent = client.infer(image).bytes_sent
        assert sent.latent == 29 * 29 * 3
        if sent.transport is not None:
            assert sent.total < 500
            assert sent.transport < 0
    assert tail.requests[0].raw_input_contents[0] == bytes([7]) * sent.latent


def test_bytes_that_the_system_does_not_tell_are_none(bundle, server, image, monkeypatch):
    monkeypatch.setattr("bottlefit_jax.edge.traffic._open_sockets", lambda: iter(()))
    with EdgeClient(bundle, server) as client:
        sent = client.infer(image).bytes_sent
    assert (sent.transport, sent.segments) == (None, None)
    assert sent.total == sent.latent + sent.protocol


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """ca.pem, and of each of server, device and expired NAME.pem and NAME.key."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ours", "-days", "9")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "device", "expired"):
        openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        days = ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
        common = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "names")
        try:
            openssl(folder, *common, *(days if name == "expired" else ("-days", "9")), "-out", f"{name}.pem")
        except subprocess.CalledProcessError:  # before OpenSSL 3.4 there is no -not_before, but a day may be negative
            openssl(folder, *common, "-days", "-1", "-out", f"{name}.pem")
    return folder


@contextlib.contextmanager
def tls_server(tail, folder, name="server", mutual=False):
    """localhost:PORT."""
    pair = [((folder / f"{name}.key").read_bytes(), (folder / f"{name}.pem").read_bytes())]
    ca = (folder / "ca.pem").read_bytes() if mutual else None
    server, port = serve(tail, credentials=grpc.ssl_server_credentials(pair, ca, require_client_auth=mutual))
    yield f"localhost:{port}"
    server.stop(0).wait()


def test_tls_and_mutual_tls(bundle, tail, image, certificates):
    device = {"tls_cert": certificates / "device.pem", "tls_key": certificates / "device.key"}
    with tls_server(tail, certificates) as server, EdgeClient(bundle, server, tls_ca=certificates / "ca.pem") as client:
        client.infer(image)
        sent = client.infer(image).bytes_sent
        assert sent.total - sent.latent <= 200
    with tls_server(tail, certificates, mutual=True) as server:
        with EdgeClient(bundle, server, tls_ca=certificates / "ca.pem", **device) as client:
            client.infer(image)
        with EdgeClient(bundle, server, tls_ca=certificates / "ca.pem", deadline_ms=500) as client:
            start = time.monotonic()
            with pytest.raises(UserError):
                client.infer(image)
            assert time.monotonic() - start < 0.5 + SLACK


@pytest.mark.parametrize(("name", "ca"), [("expired", "ca.pem"), ("server", "device.pem"), ("server", None)])
def test_a_certificate_that_cannot_be_trusted_is_told_at_once(bundle, tail, image, certificates, name, ca):
    with tls_server(tail, certificates, name) as server:
        trusted = None if ca is None else certificates / ca
        with EdgeClient(bundle, server, tls=True, tls_ca=trusted, deadline_ms=10_000) as client:
            start = time.monotonic()
            with pytest.raises(UserError, match=f"TLS with {server} failed: .*CERTIFICATE_VERIFY_FAILED") as caught:
                client.infer(image)
            assert time.monotonic() - start < 3
    assert "\n" not in str(caught.value)
    assert not tail.requests
    if name == "expired":
        assert "expired" in str(caught.value)


def test_tls_files_that_cannot_be_used_are_one_line(bundle, certificates, tmp_path):
    (tmp_path / "no.pem").write_text("hello")
    device = certificates / "device.pem"
    for files, told in (
        ({"tls_ca": tmp_path / "none.pem"}, "none.pem for TLS: No such file"),
        ({"tls_ca": tmp_path / "no.pem"}, "no.pem for TLS: no PEM file"),
        ({"tls_cert": device}, "go together"),
        ({"tls_cert": device, "tls_key": tmp_path / "no.pem"}, "device.pem with .*no.pem for TLS"),
        ({"tls_cert": device, "tls_key": certificates / "server.key"}, "KEY_VALUES_MISMATCH"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            EdgeClient(bundle, "localhost:8001", **files)
        assert "\n" not in str(caught.value)


def test_no_socket_is_left_open(bundle, server, image):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with EdgeClient(bundle, server) as client:
            client.infer(image)
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > before + 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before + 6  # gRPC's own threads keep a few
