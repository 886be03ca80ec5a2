"""Faults of the server and of the network, and what the client does then."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from bottlefit_jax.edge import statuses
from bottlefit_jax.edge.client import EdgeClient, ProtocolError, Unavailable
from bottlefit_jax.errors import BottleFitError, UserError
from tests.edge.server import Tail, serve

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def process(bundle, port=0, silences=0):
    """The server as a process of its own; gives it and its port."""
    command = [sys.executable, "-m", "tests.edge.server", str(bundle), str(port), str(silences)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, int(running.stdout.readline())
        finally:
            running.kill()


def no_answer(call, *args):
    """Unavailable's text."""
    with pytest.raises(Unavailable) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_killed_in_mid_request_and_restarted(bundle, image):
    with contextlib.ExitStack() as stack:
        first, port = stack.enter_context(process(bundle, silences=1))
        client = stack.enter_context(EdgeClient(bundle, f"localhost:{port}"))
        restarted = []

        def restart():
            assert first.stdout.readline() == "asked\n"
            first.send_signal(signal.SIGKILL)
            first.wait()
            restarted.append(stack.enter_context(process(bundle, port)))

        thread = threading.Thread(target=restart)
        thread.start()
        wanted = int(image[1:30, 2:31].sum()) % 10
        assert client.infer(image).index == wanted  # in mid-request, so it was sent again
        thread.join()
        assert restarted
        assert client.infer(image).index == wanted


def test_a_server_that_stays_away_is_reported_and_found_again(bundle, image, clock):
    with contextlib.ExitStack() as stack:
        first, port = stack.enter_context(process(bundle))
        client = stack.enter_context(EdgeClient(bundle, f"localhost:{port}", deadline_ms=60_000))
        wanted = client.infer(image).index
        first.kill()
        first.wait()
        message = no_answer(client.infer, image)
        assert message.startswith(f"no answer from localhost:{port} within 60000 ms: UNAVAILABLE")
        assert clock.now <= 60
        stack.enter_context(process(bundle, port))
        assert client.infer(image).index == wanted


def test_another_tail_behind_the_same_address_is_noticed(bundle, tail, image):
    server, port = serve(tail)
    with EdgeClient(bundle, f"localhost:{port}") as client:
        client.infer(image)
        server.stop(0).wait()
        other = Tail(json.loads((bundle / "manifest.json").read_text()))
        other.head = "d" * 64
        server, _ = serve(other, port=port)
        for _ in range(2):
            with pytest.raises(UserError, match="belongs to another head, dddddddddddd"):
                client.infer(image)
        assert len(other.requests) == 1  # whose answer was not used
    server.stop(0).wait()


@pytest.mark.parametrize("identity", ["parameters", "output"])
def test_a_tail_replaced_under_a_connection_is_noticed(bundle, server, tail, image, identity):
    tail.identity = identity
    with EdgeClient(bundle, server) as client:
        wanted = client.infer(image).index
        tail.head = "d" * 64  # another training, loaded under the same name and version
        with pytest.raises(UserError, match="belongs to another head, dddddddddddd") as caught:
            client.infer(image)
        assert not isinstance(caught.value, Unavailable | ProtocolError)
        tail.head = "a" * 64
        assert client.infer(image).index == wanted
    assert len(tail.peers) == 1


def test_an_answer_of_another_head_is_not_used_where_the_config_agrees(bundle, server, tail, image):
    def lie(response):
        response.parameters["head"].string_param = "d" * 32

    tail.alter = lie
    words = r"answered with the tail of another head, dddddddddddd…; this bundle's"
    with EdgeClient(bundle, server) as client, pytest.raises(UserError, match=words):
        client.infer(image)


@pytest.mark.parametrize("identity", [None, "short"])
def test_an_answer_that_does_not_say_whose_it_is_is_refused(bundle, server, tail, image, identity):
    def shorten(response):
        response.raw_output_contents[1] = response.raw_output_contents[1][:-1]

    tail.identity = identity and "output"
    tail.alter = shorten if identity else tail.alter
    with EdgeClient(bundle, server) as client:
        with pytest.raises(UserError, match="does not say which tail answered") as caught:
            client.infer(image)
        assert not isinstance(caught.value, Unavailable | ProtocolError)


def test_a_new_version_for_the_same_head_needs_nothing_on_the_device(bundle, server, tail, image):
    with EdgeClient(bundle, server) as client:
        wanted = client.infer(image).index
        tail.version = "4"
        assert client.infer(image).index == wanted
    with EdgeClient(bundle, server) as client:
        assert client.infer(image).index == wanted
    assert {request.model_version for request in tail.requests} == {""}


def test_an_older_version_of_our_head_is_asked_for_by_its_number(bundle, server, tail, image):
    tail.identity = "output"  # as on a Triton with `version_policy { all {} }`
    tail.others = {"9": "d" * 64, "10": "d" * 64}
    with EdgeClient(bundle, server) as client:
        wanted = client.infer(image).index
        assert tail.requests[-1].model_version == "3"
        tail.others, tail.version = {}, "11"  # ours is replaced by a newer one
        assert client.infer(image).index == wanted
        assert tail.requests[-1].model_version == ""
        tail.others = {"12": "d" * 64}  # the newest is another's from now on
        assert client.infer(image).index == wanted
        assert tail.requests[-1].model_version == "11"
        tail.head = "d" * 64
        with pytest.raises(UserError, match="belongs to another head"):
            client.infer(image)


def test_a_pinned_version_is_asked_for_and_no_other_is_taken(bundle, server, tail, image, clock):
    tail.others = {"5": "a" * 64}
    with EdgeClient(bundle, server, version=3) as client:
        client.infer(image)
        assert tail.requests[-1].model_version == "3"
        tail.answer_version = "5"
        with pytest.raises(UserError, match="answered with version 5 of digits, not 3"):
            client.infer(image)
    with EdgeClient(bundle, server, version=7) as client:
        assert "NOT_FOUND: no version 7" in no_answer(client.infer, image)
    assert clock.now <= 60


def test_clients_of_one_process_do_not_disturb_each_other(bundle, server, image):
    """Their sockets cannot be distinguished while they connect at once; only the count of bytes may be missing then."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(6) as threads:
        clients = [stack.enter_context(EdgeClient(bundle, server)) for _ in range(6)]
        latent = int(image[1:30, 2:31].sum()) % 10
        for _ in range(5):
            assert {one.index for one in threads.map(lambda client: client.infer(image), clients)} == {latent}


def test_a_server_that_accepts_and_never_answers(bundle, image):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with EdgeClient(bundle, f"127.0.0.1:{silent.getsockname()[1]}", deadline_ms=400) as client:
            assert "within 400 ms" in no_answer(client.infer, image)
            no_answer(client.connect)


def test_an_answer_that_takes_too_long_and_the_next_one(bundle, server, tail, image, deadlines):
    with EdgeClient(bundle, server) as client:
        client.infer(image)
        deadlines.append(0.4)
        tail.silences = 1
        assert "within 400 ms" in no_answer(client.infer, image)
        tail.silences = 0
        client.infer(image)
    assert sum(seconds > 1 for seconds in tail.times_left) == 2  # gRPC rounds the other one up


def test_a_retryable_status_is_retried_with_growing_pauses(bundle, server, tail, image, clock):
    tail.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE] * 3
    with EdgeClient(bundle, server) as client:
        client.infer(image)
    assert len(tail.requests) == 7
    for pause, longest in zip(clock.pauses, (0.05, 0.1, 0.2, 0.4, 0.8, 1.0), strict=True):
        assert longest / 2 <= pause <= longest


def test_an_overloaded_server_is_reported_by_the_deadline(bundle, server, tail, image, clock):
    tail.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 1000
    with EdgeClient(bundle, server) as client:
        assert "RESOURCE_EXHAUSTED: come back later" in no_answer(client.infer, image)
    assert clock.now <= 60
    assert len(tail.requests) < 2 * 60 + 10  # the pauses are at least half a second, but for the first ones


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "UNKNOWN", "INTERNAL", "UNIMPLEMENTED", "FAILED_PRECONDITION"])
def test_other_statuses_are_reported_at_once(bundle, server, tail, image, code):
    tail.refusals = [grpc.StatusCode[code]]
    with EdgeClient(bundle, server) as client:
        with pytest.raises(BottleFitError) as caught:
            client.infer(image)
        assert str(caught.value) == f"{server} answered {code}: come back later"
        assert not isinstance(caught.value, Unavailable)
        assert isinstance(caught.value, ProtocolError) == (code not in ("UNIMPLEMENTED", "FAILED_PRECONDITION"))
    assert len(tail.requests) == 1


def test_every_status_is_of_one_kind():
    tables = (statuses.RETRYABLE, statuses.THIS_IMAGE, statuses.PERMANENT)
    for code in set(grpc.StatusCode) - {grpc.StatusCode.OK}:
        assert sum(code in table for table in tables) == 1, code


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_a_short_refusal_is_retried_over_the_same_connection(bundle, server, tail, image, code):
    tail.refusals = [grpc.StatusCode[code]] * 3
    with EdgeClient(bundle, server) as client:
        assert client.infer(image).index == image[1:30, 2:31].sum() % 10
    assert len(tail.requests) == 4
    assert len(tail.peers) == 1


def test_a_message_that_stays_too_large_is_not_sent_again(bundle, server, tail, image):
    tail.refusals, tail.words = [grpc.StatusCode.RESOURCE_EXHAUSTED], "Received message larger than max (9 vs. 4)"
    with EdgeClient(bundle, server) as client, pytest.raises(ProtocolError, match="larger than max"):
        client.infer(image)
    assert len(tail.requests) == 1


def test_a_model_that_is_still_loading_is_waited_for(bundle, server, tail, image, clock):
    tail.ready = False
    with EdgeClient(bundle, server) as client:
        assert "it does not have digits ready" in no_answer(client.infer, image)
        clock.pauses.clear()
        clock.paused = lambda: setattr(tail, "ready", len(clock.pauses) == 3)
        client.infer(image)
        assert len(clock.pauses) == 3


def test_a_token_is_sent_and_a_wrong_one_is_reported(bundle, server, tail, image):
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
        framing = []
        for _ in range(20):
            sent = client.infer(image).bytes_sent
            assert sent.payload == 29 * 29 * 3
            assert 0 < sent.protocol < 100  # of which 44 name the head
            assert sent.transport is not None
            assert sent.transport > 0
            assert sent.total == sent.payload + sent.protocol + sent.transport
            framing.append(sent.total - sent.payload)
            assert sent.segments is not None
            assert 1 <= sent.segments < 10
            other.infer(image)
        # the median: now and then HTTP/2 adds a ping
        assert sorted(framing)[10] <= 200 + len(f"authorization: Bearer {token}" if token else "")


def test_compression_is_grpcs_and_saves_bytes(bundle, server, tail, image):
    image[:] = 7
    with EdgeClient(bundle, server, compress=True) as client:
        client.connect()
        sent = client.infer(image).bytes_sent
        assert sent.payload == 29 * 29 * 3
        if sent.transport is not None:
            assert sent.total < 500
            assert sent.transport < 0
    assert tail.requests[0].raw_input_contents[0] == bytes([7]) * sent.payload


def test_bytes_that_the_system_does_not_count_are_none(bundle, server, image, monkeypatch):
    monkeypatch.setattr("bottlefit_jax.edge.tcp_counters._open_sockets", lambda: iter(()))
    with EdgeClient(bundle, server) as client:
        sent = client.infer(image).bytes_sent
    assert (sent.transport, sent.segments) == (None, None)
    assert sent.total == sent.payload + sent.protocol


def test_a_call_in_another_thread_ends_when_the_connection_is_closed(bundle, server, tail, image, clock):
    tail.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 1000
    pausing, go_on = threading.Event(), threading.Event()
    client = EdgeClient(bundle, server, deadline_ms=3_600_000, policy="fixed")

    def paused():
        pausing.set()
        go_on.wait(30)

    clock.paused = paused
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.infer, image)
        assert pausing.wait(30)
        client.close()
        go_on.set()
        assert no_answer(call.result, 30) == f"the connection to {server} was closed"
    assert len(tail.requests) == 1


def test_no_socket_is_left_open(bundle, server, image):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with EdgeClient(bundle, server) as client:
            client.infer(image)
    end = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > before + 6 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before + 6  # gRPC's own threads keep a few
