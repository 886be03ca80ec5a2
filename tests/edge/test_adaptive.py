"""The client that chooses a path for each image: the policy, the local network behind it, and late answers."""

import contextlib
import threading
import time

import numpy as np
import pytest

from bottlefit_jax.edge import adaptive
from bottlefit_jax.edge.client import EdgeClient, Unavailable
from bottlefit_jax.edge.outstanding import Outstanding
from bottlefit_jax.errors import UserError
from tests.edge.test_client import latent_of, refusal


@pytest.fixture(autouse=True)
def slow_local(monkeypatch):
    """Let the policy believe that the local network takes as long as `seconds` says."""
    seconds = [0.2]
    real = adaptive.Adaptive._run_local

    def run(self, pixels):
        return real(self, pixels)._replace(seconds=seconds[0])

    def computed(self, work, taken, now, real=adaptive.Policy.computed):
        real(self, work, seconds[0] if work == adaptive.LOCAL else taken, now)

    monkeypatch.setattr(adaptive.Adaptive, "_run_local", run)
    monkeypatch.setattr(adaptive.Policy, "computed", computed)
    return seconds


def local_class(image):
    """What the example's local network says."""
    return image.reshape(-1)[:10].argmax()


def test_an_image_is_sent_at_the_most_accurate_rate_and_the_prediction_says_why(rated, server, taker, image):
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        prediction = client.infer(image)
        again = client.infer(image)
    assert prediction.index == latent_of(image).sum() % 10
    assert prediction.route.path in ("lossless", "coarse")
    assert prediction.route.reason == "the most accurate that is likely to be in time"
    assert prediction.route.likely > 0.6
    assert prediction.timings.network > 0
    assert again.bytes_sent.payload == prediction.bytes_sent.payload > 0
    assert len(taker.requests) == 2


def test_the_local_network_answers_by_the_deadline_where_the_server_is_silent(rated, server, taker, image, deadlines):
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        client.infer(image)
        taker.gate.clear()
        deadlines[:] = [1.0, 1.0]
        started = time.monotonic()
        late, next_one = client.infer(image), client.infer(image)
        assert time.monotonic() - started < 20  # a server that is silent would take minutes
        taker.gate.set()
    for prediction in (late, next_one):
        assert prediction.route.path == "local"
        assert prediction.index == local_class(image)
        assert prediction.bytes_sent.total == 0
    assert late.route.reason == "the most accurate that is likely to be in time"  # what was tried first
    assert next_one.route.reason != late.route.reason  # nothing more is put on a link that carries something
    assert len(taker.requests) == 2


def test_an_answer_that_comes_while_the_local_network_runs_is_taken(
    rated, server, taker, image, deadlines, monkeypatch
):
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        client.infer(image)
        taker.gate.clear()
        run = client._adaptive._local

        def answered_meanwhile(pixels):
            taker.gate.set()
            (request,) = client._adaptive._outstanding._deadlines
            assert request.answer(30) is not None
            return run(pixels)

        client._adaptive._local = answered_meanwhile
        deadlines[:] = [1.0]
        prediction = client.infer(image)
    assert prediction.route.path != "local"
    assert prediction.index == latent_of(image).sum() % 10


def test_without_a_server_the_local_network_answers_and_the_server_is_given_up(rated, image, deadlines, slow_local):
    slow_local[0] = 0.05
    with EdgeClient(rated, "localhost:9", policy="auto", local=True) as client:
        for _ in range(5):
            deadlines.append(0.4)
            assert client.infer(image).route.path == "local"


def test_without_a_local_network_a_late_answer_is_an_error_at_the_deadline(rated, server, taker, image, deadlines):
    with EdgeClient(rated, server, policy="auto") as client:
        client.infer(image)
        taker.gate.clear()
        for _ in range(3):
            deadlines[:] = [0.3]
            started = time.monotonic()
            with pytest.raises(Unavailable, match=f"no answer from {server} within 300 ms"):
                client.infer(image)
            assert 0.3 <= time.monotonic() - started < 20
        taker.gate.set()
        assert client.infer(image).route.path in ("lossless", "coarse")


def test_the_server_is_told_for_how_long_an_answer_is_of_use_and_has_longer(rated, server, taker, image, deadlines):
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        deadlines[:] = [1.5]
        client.infer(image)
    limit = taker.requests[-1].parameters["timeout"].int64_param / 1e6
    assert 0 < limit < 1.5
    assert taker.times_left[-1] > limit + 0.4  # 2 s: a late answer is still waited for


def test_a_server_of_another_head_is_an_error_even_with_a_local_network(rated, server, taker, image):
    taker.head = "d" * 64
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        assert "belongs to another head" in refusal(client.infer, image)


def test_it_ends_at_once_while_a_request_is_on_its_way(rated, server, taker, image, deadlines):
    taker.gate.clear()
    others = set(threading.enumerate())  # of tests before this one
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        deadlines[:] = [1.0]
        client.infer(image)
        started = time.monotonic()
    assert time.monotonic() - started < 20
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("bottlefit-request"):
            thread.join(30)
            assert not thread.is_alive()


def test_arguments_that_do_not_go_together_are_refused(rated, bundle, server):
    assert "policy is 'fast': give 'auto' or 'fixed'" in refusal(EdgeClient, rated, server, policy="fast")
    assert "local=True needs a server and policy 'auto'" in refusal(EdgeClient, rated, None, local=True)
    assert "local=True needs a server and policy 'auto'" in refusal(
        EdgeClient, rated, server, rate="coarse", local=True
    )
    assert "local=True needs a server and policy 'auto'" in refusal(
        EdgeClient, rated, server, policy="fixed", local=True
    )
    assert "the bundle has no rates" in refusal(EdgeClient, bundle, server, local=True)
    assert "bytes_per_second is 0" in refusal(EdgeClient, rated, server, bytes_per_second=0)
    assert "bytes_per_second belongs to policy 'auto'" in refusal(
        EdgeClient, rated, server, rate="coarse", bytes_per_second=1000
    )


def test_a_policy_is_the_default_where_there_are_rates_to_choose_from(rated, bundle, server, taker, image):
    with EdgeClient(rated, server) as client:
        assert client.infer(image).route.reason == "the most accurate that is likely to be in time"
    for folder, options in ((rated, {"rate": "lossless"}), (rated, {"policy": "fixed"}), (bundle, {})):
        with EdgeClient(folder, server, **options) as client:
            assert client.infer(image).route.reason == "every image is sent at this rate"


@pytest.mark.parametrize("local", [False, True])
def test_a_deadline_below_what_the_head_takes_is_said_once_at_the_start(rated, server, taker, image, caplog, local):
    with EdgeClient(rated, server, deadline_ms=0.001, local=local) as client:
        (record,) = caplog.records
        assert record.getMessage().startswith("the deadline is 0.001 ms, and the head alone takes ")
        assert record.getMessage().endswith(" ms on this device: no image will be answered in time")
        with contextlib.suppress(Unavailable):
            client.infer(image)
    assert len(caplog.records) == 1
    caplog.clear()
    with EdgeClient(rated, server, deadline_ms=5000, local=local):
        assert not caplog.records


def test_requests_end_in_any_order_and_are_told_once():
    gates = {name: threading.Event() for name in (b"a", b"b")}

    def infer(image, deadline):
        gates[image].wait(10)
        if image == b"b":
            raise UserError("refused")
        return image

    outstanding = Outstanding(infer, most=2)
    first, second = (outstanding.send(name, adaptive.Deadline(10), number) for number, name in enumerate((b"a", b"b")))
    assert outstanding.is_full
    assert first.answer(0) is None
    assert outstanding.ended() == []
    assert not outstanding.wait(0.01)
    gates[b"b"].set()
    assert outstanding.wait(10)
    assert outstanding.ended() == [second]
    assert isinstance(second.failure, UserError)
    assert not outstanding.is_full
    gates[b"a"].set()
    assert first.answer(10) == b"a"
    assert outstanding.wait(10)
    assert outstanding.ended() == [first]
    assert first.ended >= second.ended
    outstanding.close()


def test_softmax_of_the_local_network_is_what_a_local_prediction_has(rated, server, taker, image, deadlines):
    with EdgeClient(rated, server, policy="auto", local=True) as client:
        taker.gate.clear()
        deadlines[:] = [1.0]
        prediction, alone = client.infer(image), client.infer_local(image)
        taker.gate.set()
    np.testing.assert_array_equal(prediction.probabilities, alone.probabilities)
    assert alone.route.path == "local"
