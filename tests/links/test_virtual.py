"""Devices in virtual time: what must be so whatever a policy chooses, and what the policy reaches."""

import pytest

from bottlefit_jax.edge.path import HEAD, LOCAL, Path
from bottlefit_jax.edge.policy import Choice, Policy
from bottlefit_jax.links.oracle import oracle
from bottlefit_jax.links.trace import Trace
from bottlefit_jax.links.virtual import Simulation
from bottlefit_jax.links.virtual_server import Events, VirtualServer
from bottlefit_jax.links.world import (
    ANSWER_BYTES,
    PING_BYTES,
    PONG_BYTES,
    REQUEST_BYTES,
    Outcome,
    Times,
    World,
    draws,
)

RATES = (
    Path("fine", 75.0, HEAD, 6000.0, 7000.0),
    Path("middle", 74.0, HEAD, 3000.0, 3600.0),
    Path("coarse", 72.0, HEAD, 1500.0, 1800.0),
)
ALONE = Path(LOCAL, 70.0, LOCAL)
STEADY = Trace("steady", (0.0,), (8.0,))  # 1 MB a second
CHANGING = Trace("changing", (0.0, 10.0, 14.0, 20.0, 25.0, 26.0), (3.0, 0.6, 4.0, 0.0, 1.0, 2.0))


def world(trace=CHANGING, *, local=True, deadline=0.1, period=0.0, seconds=30.0):
    paths = (*RATES, ALONE) if local else RATES
    times = Times(0.008, 0.03 if local else None, 0.004)
    return World(trace, paths, 0.005, times, deadline, period, seconds=seconds)


def fixed(path, where):
    choice = Choice(path, "fixed")
    return Simulation(where, lambda *_: choice).run()


def auto(where):
    policy = Policy(where.paths)
    return Simulation(where, lambda _, *situation: policy.choose(*situation), policy).run()


def test_an_image_takes_what_its_parts_take():
    where = world(STEADY, seconds=1.0)
    outcome = fixed(RATES[0], where)
    parts = [
        draw.head * 0.008 + (draw.payload(RATES[0]) + REQUEST_BYTES + ANSWER_BYTES) / 1e6 + 0.01 + draw.tail * 0.004
        for draw in draws(0)[: outcome.images]
    ]
    assert outcome.times == pytest.approx(parts)
    assert outcome.images == len(outcome.times) > 30
    assert outcome.to_json()["top1"] == pytest.approx(75.0)


def test_a_link_that_is_full_makes_everything_late():
    outcome = fixed(RATES[0], world(Trace("slow", (0.0,), (1.0,)), period=1 / 30))  # 6.3 kB take 50 ms
    assert outcome.images == 900
    assert outcome.in_time < 20


def test_the_local_network_alone_is_always_in_time():
    for period in (0.0, 1 / 30):
        outcome = fixed(ALONE, world(period=period))
        assert outcome.in_time == outcome.images
        assert outcome.sent == 0


def test_the_same_seed_gives_the_same_outcome():
    assert auto(world(period=1 / 30)) == auto(world(period=1 / 30))


@pytest.mark.parametrize("period", [0.0, 1 / 30])
@pytest.mark.parametrize("deadline", [0.1, 0.2])
def test_no_deadline_is_missed_where_there_is_a_local_network(period, deadline):
    where = world(period=period, deadline=deadline)
    found, best = auto(where), oracle(where).run()
    assert found.in_time >= 0.999 * found.images
    assert max(found.times) <= deadline
    means = {path.name: fixed(path, where).to_json()["top1"] for path in where.paths}
    assert max(means.values()) < found.to_json()["top1"] <= best.to_json()["top1"] + 0.1
    assert best.to_json()["top1"] - found.to_json()["top1"] < 1.0


@pytest.mark.parametrize("period", [0.0, 1 / 30])
def test_most_of_what_can_be_answered_is_answered_without_a_local_network(period):
    where = world(period=period, local=False)
    found, best = auto(where), oracle(where).run()
    assert found.to_json()["in_time"] >= 0.95 * best.to_json()["in_time"]


def test_an_oracle_is_never_behind_a_fixed_path():
    for period in (0.0, 1 / 30):
        where = world(period=period, local=False)
        best = oracle(where).run().to_json()["top1"]
        assert all(fixed(path, where).to_json()["top1"] <= best for path in RATES)


def test_outcomes_add_up():
    one, other = fixed(RATES[0], world(STEADY, seconds=1.0)), fixed(ALONE, world(STEADY, seconds=1.0))
    both = Outcome.of_all([one, other])
    assert (both.images, both.in_time) == (one.images + other.images, one.in_time + other.in_time)
    assert both.paths == {"fine": one.in_time, LOCAL: other.in_time}
    assert both.to_json()["top1"] == pytest.approx((one.top1 + other.top1) / both.images)


@pytest.mark.parametrize("period", [0.0, 1 / 30])
def test_a_link_on_which_most_images_are_late_still_carries_those_that_can_be_in_time(period):
    """A request that will be late is not sent where it would make the next one late, too."""
    rates = (0.5, 0.7, 0.45, 0.9, 0.6, 0.5, 0.8, 0.4)
    where = world(Trace("hard", tuple(range(len(rates))), rates), local=False, deadline=0.05, period=period)
    found, coarse, best = auto(where), fixed(RATES[-1], where), oracle(where).run()
    assert 0 < coarse.in_time < 0.8 * coarse.images
    assert found.in_time / found.images >= 0.95 * coarse.in_time / coarse.images
    assert found.in_time / found.images >= 0.9 * best.in_time / best.images


def at_a_server_that_is_down_until(end):
    """What becomes of one image with 2 seconds to its deadline, and the server."""
    server = VirtualServer(events := Events(), lambda images: 0.004)
    server.fail(0.0, end)
    where = world(STEADY, local=False, deadline=2.0, seconds=0.1)
    device = Simulation(where, lambda *_: Choice(RATES[0], "fixed"), events=events, server=server)
    return device.run(), server


def test_a_refused_request_is_sent_again_until_the_server_takes_it():
    outcome, server = at_a_server_that_is_down_until(0.5)
    assert outcome.images == outcome.in_time == 1
    assert 0.5 < outcome.times[0] < 1.0
    assert server.refused > 1
    assert outcome.sent == pytest.approx((server.refused + 1) * (draws(0)[0].payload(RATES[0]) + REQUEST_BYTES))


def test_a_refused_request_is_given_up_at_its_deadline():
    outcome, server = at_a_server_that_is_down_until(float("inf"))
    assert outcome.in_time == 0
    assert 4 <= server.refused <= 10  # the pauses double


def test_a_device_measures_the_delay_of_its_link_every_ten_seconds():
    class Listening(Policy):
        def pinged(self, seconds, now):
            heard.append((seconds, now))
            super().pinged(seconds, now)

    heard, where = [], world(STEADY, local=False, period=1.0)
    policy = Listening(where.paths)
    outcome = Simulation(where, lambda _, *situation: Choice(RATES[0], "fixed"), policy).run()
    (_, *pings) = heard  # the first one is known before the first image
    assert [now for _, now in pings] == pytest.approx([11.0, 22.0], abs=0.1)
    assert [seconds for seconds, _ in pings] == pytest.approx([0.01 + (PING_BYTES + PONG_BYTES) / 1e6] * 2)
    images = sum(draw.payload(RATES[0]) + REQUEST_BYTES for draw in draws(0)[: outcome.images])
    assert outcome.sent == pytest.approx(images + 2 * PING_BYTES)
