"""The policy, in memory: what it chooses after what it observed."""

import pytest

from bottlefit_jax.edge.budget import SAVED, Budget
from bottlefit_jax.edge.path import HEAD, LOCAL, Path
from bottlefit_jax.edge.policy import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Policy
from bottlefit_jax.errors import UserError

FINE, COARSE = Path("fine", 75.0, HEAD, 6000.0, 6000.0), Path("coarse", 72.0, HEAD, 1500.0, 1500.0)
ALONE = Path(LOCAL, 70.0, LOCAL)
HEAD_SECONDS, LOCAL_SECONDS, SERVER, DELAY = 0.008, 0.03, 0.004, 0.01


class World:
    """A policy, and a link that carries so many bytes a second."""

    def __init__(self, *paths, rate=1e6, budget=None):
        self.policy, self.rate, self.now = Policy(paths, budget=budget), rate, 0.0
        self.policy.pinged(DELAY, 0.0)
        for _ in range(10):
            self.policy.computed(HEAD, HEAD_SECONDS, 0.0)
            self.policy.computed(LOCAL, LOCAL_SECONDS, 0.0)

    def send(self, path):
        return self.policy.sent(path.bytes_mean + 300, path.bytes_mean, self.now)

    def answer(self, ticket, path):
        self.now += (path.bytes_mean + 300) / self.rate + DELAY + SERVER
        self.policy.answered(ticket, server=SERVER, now=self.now)

    def learn(self, path=COARSE, times=20):
        for _ in range(times):
            self.answer(self.send(path), path)
        return self

    def choose(self, left):
        return self.policy.choose(self.now, left)


@pytest.mark.parametrize(
    ("rate", "left", "expected"),
    [
        (1e6, 0.1, "fine"),  # 6 ms for its bytes
        (1e5, 0.1, "coarse"),  # 63 ms and 18 ms, and 22 ms for all else
        (1e5, 0.2, "fine"),
        (2e4, 0.5, "coarse"),
    ],
)
def test_the_most_accurate_path_is_taken_that_is_likely_to_be_in_time(rate, left, expected):
    choice = World(FINE, COARSE, rate=rate).learn().choose(left)
    assert choice.path.name == expected
    assert choice.probability > 0.95
    assert choice.hedge is None
    assert choice.expected == pytest.approx(
        HEAD_SECONDS + DELAY + SERVER + (choice.path.bytes_mean + 300) / rate, rel=0.05
    )


def test_where_nothing_is_likely_the_likeliest_is_taken():
    choice = World(FINE, COARSE, rate=2e4).learn().choose(0.1)
    assert (choice.path, choice.reason) == (COARSE, "the most likely to be in time")
    assert choice.probability < 0.5


def test_the_local_network_follows_where_the_server_is_late():
    choice = World(FINE, COARSE, ALONE).learn().choose(0.1)
    assert choice.path == FINE
    assert 0.1 - 1.3 * LOCAL_SECONDS < choice.hedge + 0.005 < 0.1 - LOCAL_SECONDS  # threads may begin 5 ms late
    short = World(FINE, COARSE, ALONE).learn().choose(1.3 * LOCAL_SECONDS)
    assert short.hedge is None or short.hedge >= 0  # there is no time for that, and it begins at once


def test_the_local_network_is_taken_where_no_rate_is_likely():
    choice = World(FINE, COARSE, ALONE, rate=1e4).learn().choose(0.1)
    assert (choice.path, choice.hedge, choice.reason) == (ALONE, None, "no rate is likely to be in time")


def test_where_the_local_network_is_as_accurate_as_a_rate_the_sooner_is_taken():
    fast, slow = (World(FINE, Path(LOCAL, 75.0, LOCAL), rate=rate).learn().choose(0.2) for rate in (1e6, 3e5))
    assert (fast.path.name, fast.hedge is None) == ("fine", False)  # 28 ms, and the local network 30
    assert (slow.path.name, slow.hedge) == (LOCAL, None)  # 43 ms
    assert slow.reason == "an answer is expected sooner than by a rate that is as accurate"


def test_a_local_network_that_is_more_accurate_than_all_rates_is_always_taken():
    choice = World(FINE, Path(LOCAL, 75.1, LOCAL)).learn().choose(0.2)
    assert (choice.path.name, choice.reason) == (LOCAL, "no rate is as accurate")


def test_a_deadline_below_the_local_networks_time_leaves_the_server():
    choice = World(FINE, COARSE, ALONE).learn().choose(0.03)
    assert choice.path.work == HEAD
    assert choice.hedge is None


def test_a_deadline_with_no_time_for_both_has_the_local_network():
    choice = World(FINE, COARSE, ALONE).learn().choose(0.042)
    assert (choice.path, choice.reason) == (ALONE, "there is no time for the server and then for the local network")


def test_a_server_that_was_late_again_and_again_is_given_up_until_it_answers():
    world = World(FINE, COARSE, ALONE).learn()
    tickets = [world.send(FINE) for _ in range(FAILURES)]
    for _ in tickets:
        assert not world.policy.is_open
        world.policy.late(world.now)
    assert world.policy.is_open
    assert world.choose(0.1).reason == "the server is given up for now"
    world.answer(tickets[0], FINE)
    assert not world.policy.is_open


def test_without_a_local_network_a_server_that_is_given_up_is_tried_all_the_same():
    world = World(FINE, COARSE).learn()
    for _ in range(FAILURES):
        world.policy.failed(world.send(FINE), world.now)
    assert world.policy.is_open
    assert world.choose(0.1).path is not None


def test_nothing_more_is_put_on_a_link_that_stands_still():
    world = World(FINE, COARSE).learn()
    ticket = world.send(FINE)
    world.now += 2.0
    choice = world.choose(0.1)
    assert (choice.path, choice.reason) == (None, "what was sent before is still on its way")
    world.answer(ticket, FINE)
    assert world.choose(0.1).path is not None


def test_probes_come_at_growing_pauses_and_never_beside_a_request():
    world = World(FINE, COARSE, ALONE).learn()
    ticket = world.send(FINE)
    assert not world.policy.probe(world.now + 100)
    world.policy.failed(ticket, world.now)
    pauses, now, last = [], world.now, world.now
    while len(pauses) < 8:
        now += 0.01
        if world.policy.probe(now):
            pauses.append(now - last)
            last = now
            world.policy.failed(world.policy.sent(1800.0, 1500.0, now), now)
    expected = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(8)]
    assert pauses[1:] == pytest.approx(expected[1:], abs=0.011)
    world.now = now
    world.learn(times=1)
    assert not world.policy.probe(world.now + FIRST_PAUSE - 0.01)
    assert world.policy.probe(world.now + FIRST_PAUSE)


def test_a_link_that_is_busy_gets_less():
    """With images that come faster than the link carries the finest rate, and a deadline that would allow it."""
    world, chosen = World(FINE, COARSE, rate=1e5).learn(), []
    free = world.now
    waiting = []
    for _ in range(60):
        while waiting and waiting[0][1] <= world.now:
            ticket, at = waiting.pop(0)
            world.policy.answered(ticket, server=SERVER, now=at)
        choice = world.choose(0.3)
        if choice.path is not None:
            chosen.append(choice.path.name)
            free = max(free, world.now + HEAD_SECONDS) + (choice.path.bytes_mean + 300) / world.rate
            waiting.append((world.send(choice.path), free + DELAY + SERVER))
        world.now += 1 / 30
    assert chosen.count("coarse") > 20  # 6,300 bytes in 33 ms are too much, 1,800 are not
    assert chosen.count("fine") > 5
    assert free - world.now < 0.2


@pytest.mark.parametrize("paths", [(FINE, COARSE), (FINE, COARSE, ALONE)])
def test_a_budget_leaves_the_finest_rate_that_it_has_bytes_for(paths):
    world = World(*paths, budget=Budget(1000.0))
    sent, names = 0.0, []
    for _ in range(1200):
        choice = world.choose(0.1)
        names.append(None if choice.path is None else choice.path.name)
        if names[-1] in ("fine", "coarse"):
            sent += choice.path.bytes_mean + 300
            world.answer(world.send(choice.path), choice.path)
        world.now += 0.1
    assert names[1:].index("fine") < 20  # from what is saved up, as soon as the link is known
    assert sent <= 1000.0 * (world.now + SAVED)
    assert sent > 800.0 * world.now
    assert set(names) == {"fine", "coarse", "local" if len(paths) == 3 else None}
    world.now += 1e-3
    refused = world.choose(0.1)
    if refused.path in (None, ALONE):
        assert refused.reason == "the budget of bytes is used up"


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number_above_0(wrong):
    with pytest.raises(UserError, match=r"bytes_per_second is .*: give more than 0"):
        Budget(wrong)
