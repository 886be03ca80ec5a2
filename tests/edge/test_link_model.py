"""What a device believes of its link, after requests and answers at times that the tests make up."""

import pytest

from bottlefit_jax.edge.link_model import LinkModel
from bottlefit_jax.edge.path import HEAD, Path

PATH = Path("rate", 75.0, HEAD, 1000.0, 1000.0)
DELAY, SERVER = 0.02, 0.004


def carried(link, size, start, seconds):
    """A request that the link takes so long for; returns when its answer is there."""
    ticket = link.sent(size, size - 300.0, start)
    answered = start + seconds + DELAY + SERVER
    link.answered(ticket, SERVER, answered)
    return answered


def known(seconds_per_byte=1e-5):
    link, now = LinkModel(), 0.0
    link.pinged(DELAY, now)
    for _ in range(20):
        now = carried(link, 1300.0, now, 1300.0 * seconds_per_byte)
    return link, now


def test_a_rate_is_learnt_whatever_delay_and_server_take():
    link, now = known()
    assert link.delay == DELAY
    assert link.expected(now).of(PATH).median == pytest.approx(0.013, rel=0.01)
    assert link.expected(now).of(Path("twice", 0, HEAD, 2300.0, 2300.0)).median == pytest.approx(0.026, rel=0.01)


def test_payloads_of_many_sizes_are_less_certain():
    link, now = known()
    assert (
        link.expected(now).of(Path("wide", 0, HEAD, 1000.0, 2000.0)).variance
        > link.expected(now).of(PATH).variance + 0.1
    )


def test_requests_behind_each_other_do_not_make_the_link_look_slow():
    link, now = known()
    tickets = [link.sent(1300.0, 1000.0, now) for _ in range(4)]
    for place, ticket in enumerate(tickets, 1):
        link.answered(ticket, SERVER, now + 0.013 * place + DELAY + SERVER)
    assert link.expected(now + 0.1).of(PATH).median == pytest.approx(0.013, rel=0.01)
    assert not link.is_busy


def test_what_is_on_its_way_is_waited_for():
    link, now = known()
    assert link.waiting(now) == 0.0
    for _ in range(3):
        link.sent(1300.0, 1000.0, now)
    assert link.is_busy
    assert link.waiting(now) == pytest.approx(0.039, rel=0.01)
    assert link.waiting(now + 0.01) == pytest.approx(0.029, rel=0.01)
    assert link.expected(now).of(PATH, waiting=0.039).median == pytest.approx(0.052, rel=0.01)


def test_a_link_that_says_nothing_is_expected_to_say_nothing_for_longer():
    link, now = known()
    link.sent(1300.0, 1000.0, now)
    waits = [link.waiting(now + seconds) for seconds in (0.5, 1.0, 4.0)]
    assert waits == sorted(waits)
    assert waits[2] > 1.5


def test_a_request_that_failed_is_not_on_its_way():
    link, now = known()
    ticket = link.sent(1300.0, 1000.0, now)
    link.failed(ticket)
    assert not link.is_busy
    assert link.waiting(now) == 0.0


def test_the_delay_is_that_of_the_shortest_ping_of_the_last_minute():
    link = LinkModel()
    assert link.delay == 0.0
    link.pinged(0.05, 0.0)
    link.pinged(0.02, 1.0)
    link.pinged(0.08, 2.0)
    assert link.delay == 0.02
    link.pinged(0.08, 70.0)
    assert link.delay == 0.08


def test_the_rest_of_a_request_is_learnt():
    link = LinkModel()
    before = link.expected(0.0).of(PATH).median
    for _ in range(40):
        link.failed(link.sent(2000.0, 1000.0, 0.0))
    assert link.expected(0.0).of(PATH).median == pytest.approx(before * 2000 / 1300, rel=0.01)
