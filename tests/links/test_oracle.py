"""The oracle's search, against all plans that there are, and against the definition of what it keeps."""

import itertools
import random

import pytest

from bottlefit_jax.edge.path import HEAD, LOCAL, Path
from bottlefit_jax.edge.policy import Choice
from bottlefit_jax.links import oracle
from bottlefit_jax.links.trace import Trace
from bottlefit_jax.links.virtual import Simulation
from bottlefit_jax.links.world import Times, World

PATHS = (Path("fine", 75.0, HEAD, 6000.0, 7000.0), Path("coarse", 72.0, HEAD, 1500.0, 1800.0), Path(LOCAL, 70.0, LOCAL))


def test_no_plan_is_better_than_the_oracles():
    trace = Trace("changing", (0.0, 0.06, 0.1), (0.9, 0.2, 0.6))
    world = World(trace, PATHS, 0.005, Times(0.008, 0.05, 0.004), 0.1, 1 / 30, seconds=0.165)
    best = oracle.oracle(world).run()
    assert best.images == 5

    def reached(plan):
        return Simulation(world, lambda image, *_: Choice(plan[image.number], "planned")).run().top1

    plans = list(itertools.product((*PATHS, None), repeat=5))
    found = sorted((reached(plan) for plan in plans), reverse=True)
    assert best.top1 == pytest.approx(found[0])
    assert found[0] > max(reached((path,) * 5) for path in PATHS)


def test_a_state_is_kept_unless_another_leaves_as_much_and_is_worth_as_much():
    chance = random.Random(0)
    for _ in range(200):
        now = chance.uniform(0, 1)
        states = [
            oracle._State(chance.uniform(0, 2), chance.uniform(0, 2), chance.randrange(3), None) for _ in range(9)
        ]
        states.sort(key=lambda state: (-state.value, state.link + state.local))
        kept = []
        for state in states:
            link, local = max(state.link, now), max(state.local, now)
            if not any(each.link <= link and each.local <= local for each in kept):
                kept.append(state)
        assert oracle._best(states, now) == kept
