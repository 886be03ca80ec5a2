"""Choices of somebody who knows the trace and all that chance decides: what a policy could reach at most."""

import bisect
from dataclasses import dataclass, replace
from typing import Any

from bottlefit_jax.edge.options import AUTO_IN_FLIGHT
from bottlefit_jax.edge.path import LOCAL, Path
from bottlefit_jax.edge.policy import Choice
from bottlefit_jax.links.virtual import Image, Simulation
from bottlefit_jax.links.world import REQUEST_BYTES, World

KEPT = 24  # states of the link from which the search goes on, after each image
NOTHING = Choice(None, "nothing can be in time")


def oracle(world: World) -> Simulation:
    """Return a simulation whose paths are chosen by somebody who knows everything."""
    world = replace(world, in_flight=AUTO_IN_FLIGHT)
    return _planned(world) if world.period else _greedy(world)


@dataclass(slots=True)
class _State:
    """What the images until now have left: when link and local network are free, the sum of top-1, and the paths."""

    link: float
    local: float
    value: float
    chosen: Any  # (path, the same before), from the last image to the first


class _Options:
    """The paths of one image, whatever has been before it."""

    def __init__(self, world: World, number: int, taken: float):
        """Look at an image.

        Args:
            world: of the image.
            number: of the image.
            taken: when the device begins with it.
        """
        draw, times = world.draw(number), world.times
        self._world, self._taken, self._deadline = world, taken, taken + world.deadline
        self._sent, self._tail = taken + draw.head * times.head, draw.tail * times.tail
        self._local = draw.local * (times.local or 0.0)
        # Path, bytes, and what is known already: when a request begins -> when the link is free, and the answer there
        self._paths: list[tuple[Path, float, dict[float, tuple[float, float]]]] = [
            (path, 0.0 if path.work == LOCAL else draw.payload(path) + REQUEST_BYTES, {}) for path in world.paths
        ]

    def after(self, state: _State) -> list[_State]:
        """Return what the paths leave of a state that answer the image in time; `chosen` begins with the path."""
        found = []
        for path, size, known in self._paths:
            link, local = state.link, state.local
            if path.work == LOCAL:
                local = answered = (local if local > self._taken else self._taken) + self._local
            else:
                start = link if link > self._sent else self._sent
                times = known.get(start)
                if times is None:
                    times = known[start] = self._world.answered(start, size, self._tail)
                link, answered = times
            if answered <= self._deadline:
                found.append(_State(link, local, state.value + path.top1, (path, state.chosen)))
        return found


def _greedy(world: World) -> Simulation:
    """Take the best path for each image: where the next one waits for this one, the link is always empty."""

    def choose(image: Image, now: float, *_: float) -> Choice:
        options = _Options(world, image.number, now).after(_State(simulation.link_free, 0.0, 0.0, None))
        paths = [left.chosen[0] for left in options]
        best = max(paths, key=lambda path: (path.top1, -path.bytes_mean), default=None)
        return NOTHING if best is None else Choice(best, "known", 1.0)

    simulation = Simulation(world, choose)
    return simulation


def _planned(world: World) -> Simulation:
    """Search for the paths of all images together: what one sends or computes, the next has to wait for.

    After each image the search keeps those states of which none leaves less to the next images and has less value.
    """
    states = [_State(0.0, 0.0, 0.0, None)]
    number, taken = 0, 0.0
    while taken < world.seconds:
        options, reached = _Options(world, number, taken), []
        for state in states:
            reached.append(_State(state.link, state.local, state.value, (None, state.chosen)))
            reached += options.after(state)
        states = _best(reached, taken)
        number, taken = number + 1, (number + 1) * world.period
    chosen = max(states, key=lambda state: state.value).chosen
    plan: list[Path | None] = []
    while chosen is not None:
        path, chosen = chosen
        plan.append(path)
    plan.reverse()

    def choose(image: Image, *_: float) -> Choice:
        path = plan[image.number]
        return NOTHING if path is None else Choice(path, "known")

    return Simulation(world, choose)


def _best(states: list[_State], now: float) -> list[_State]:
    """Return states of which none is free as early as another with as much value, KEPT of them at most."""
    kept: list[_State] = []
    links: list[float] = []  # of those kept, rising, without those that are behind another in both
    locals_: list[float] = []  # of the same, and so falling
    for state in sorted(states, key=lambda state: (-state.value, state.link + state.local)):
        before = bisect.bisect_right(links, state.link if state.link > now else now)
        if before and locals_[before - 1] <= (state.local if state.local > now else now):
            continue
        kept.append(state)
        first = end = bisect.bisect_left(links, state.link)
        while end < len(links) and locals_[end] >= state.local:
            end += 1
        links[first:end], locals_[first:end] = [state.link], [state.local]
    if len(kept) <= KEPT:
        return kept
    step = (len(kept) - 1) / (KEPT - 1)
    return [kept[round(index * step)] for index in range(KEPT)]
