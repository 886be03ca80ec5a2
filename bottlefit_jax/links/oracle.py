"""Choices of somebody who knows the trace and all that chance decides: what a policy could reach at most."""

from typing import Any

from bottlefit_jax.edge.path import LOCAL, Path
from bottlefit_jax.edge.policy import Choice
from bottlefit_jax.links.virtual import Image, Simulation
from bottlefit_jax.links.world import REQUEST_BYTES, World

KEPT = 24  # states of the link from which the search goes on, after each image
NOTHING = Choice(None, "nothing can be in time")


def oracle(world: World) -> Simulation:
    """Return a simulation whose paths are chosen by somebody who knows everything."""
    return _planned(world) if world.period else _greedy(world)


def _options(world: World, number: int, taken: float, link_free: float) -> list[tuple[Path, float]]:
    """Return the paths that answer an image in time, and when the link is free behind each.

    Args:
        world: of the image.
        number: of the image.
        taken: when the device begins with it.
        link_free: when the link is free before it.
    """
    draw, times, found = world.draw(number), world.times, []
    for path in world.paths:
        if path.work == LOCAL:
            if times.local is not None and draw.local * times.local <= world.deadline:
                found.append((path, link_free))
            continue
        sent, size = taken + draw.head * times.head, draw.payload(path) + REQUEST_BYTES
        left, answered = world.answered(sent, size, draw.tail * times.tail, link_free)
        if answered <= taken + world.deadline:
            found.append((path, left))
    return found


def _greedy(world: World) -> Simulation:
    """Take the best path for each image: where the next one waits for this one, the link is always empty."""

    def choose(image: Image, now: float, *_: float) -> Choice:
        options = _options(world, image.number, now, simulation.link_free)
        best = max(options, key=lambda option: (option[0].top1, -option[0].bytes_mean), default=None)
        return NOTHING if best is None else Choice(best[0], "known", 1.0)

    simulation = Simulation(world, choose)
    return simulation


def _planned(world: World) -> Simulation:
    """Search for the paths of all images together: what one sends, the next has to wait for.

    After each image the search keeps those states of the link of which none is free earlier with more right answers.
    """
    states: list[tuple[float, float, Any]] = [(0.0, 0.0, None)]  # link free, sum of top-1, (path, the same before)
    number, taken = 0, 0.0
    while taken < world.seconds:
        reached = []
        for link_free, value, chosen in states:
            reached.append((link_free, value, (None, chosen)))
            for path, free in _options(world, number, taken, link_free):
                reached.append((free, value + path.top1, (path, chosen)))
        states = _best(reached, taken)
        number, taken = number + 1, (number + 1) * world.period
    _, _, chosen = max(states, key=lambda state: state[1])
    plan: list[Path | None] = []
    while chosen is not None:
        path, chosen = chosen
        plan.append(path)
    plan.reverse()

    def choose(image: Image, *_: float) -> Choice:
        path = plan[image.number]
        return NOTHING if path is None else Choice(path, "known")

    return Simulation(world, choose)


def _best(states: list[tuple[float, float, Any]], now: float) -> list[tuple[float, float, Any]]:
    """Return states of which none has a link that is free earlier and at least as many right answers."""
    kept: list[tuple[float, float, Any]] = []
    for state in sorted(states, key=lambda state: (max(state[0], now), -state[1])):
        if not kept or state[1] > kept[-1][1]:
            kept.append(state)
    if len(kept) <= KEPT:
        return kept
    step = (len(kept) - 1) / (KEPT - 1)
    return [kept[round(index * step)] for index in range(KEPT)]
