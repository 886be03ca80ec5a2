"""Choices of somebody who knows the trace and all that chance decides: what a policy could reach at most."""

from typing import Any, NamedTuple

from bottlefit_jax.edge.path import LOCAL, Path
from bottlefit_jax.edge.policy import Choice
from bottlefit_jax.links.virtual import Image, Simulation
from bottlefit_jax.links.world import REQUEST_BYTES, World

KEPT = 24  # states of the link from which the search goes on, after each image
NOTHING = Choice(None, "nothing can be in time")


def oracle(world: World) -> Simulation:
    """Return a simulation whose paths are chosen by somebody who knows everything."""
    return _planned(world) if world.period else _greedy(world)


class _State(NamedTuple):
    """What the images until now have left: when link and local network are free, the sum of top-1, and the paths."""

    link: float
    local: float
    value: float
    chosen: Any  # (path, the same before), from the last image to the first


def _options(world: World, number: int, taken: float, state: _State) -> list[tuple[Path, _State]]:
    """Return the paths that answer an image in time, and what each leaves.

    Args:
        world: of the image.
        number: of the image.
        taken: when the device begins with it.
        state: before it.
    """
    draw, times, found = world.draw(number), world.times, []
    for path in world.paths:
        link, local, chosen = state.link, state.local, (path, state.chosen)
        if path.work == LOCAL:
            local = max(taken, local) + draw.local * (times.local or 0.0)
            answered = local
        else:
            sent, size = taken + draw.head * times.head, draw.payload(path) + REQUEST_BYTES
            link, answered = world.answered(sent, size, draw.tail * times.tail, link)
        if answered <= taken + world.deadline:
            found.append((path, _State(link, local, state.value + path.top1, chosen)))
    return found


def _greedy(world: World) -> Simulation:
    """Take the best path for each image: where the next one waits for this one, the link is always empty."""

    def choose(image: Image, now: float, *_: float) -> Choice:
        options = _options(world, image.number, now, _State(simulation.link_free, 0.0, 0.0, None))
        best = max(options, key=lambda option: (option[0].top1, -option[0].bytes_mean), default=None)
        return NOTHING if best is None else Choice(best[0], "known", 1.0)

    simulation = Simulation(world, choose)
    return simulation


def _planned(world: World) -> Simulation:
    """Search for the paths of all images together: what one sends or computes, the next has to wait for.

    After each image the search keeps those states of which none leaves less to the next images and has less value.
    """
    states = [_State(0.0, 0.0, 0.0, None)]
    number, taken = 0, 0.0
    while taken < world.seconds:
        reached = []
        for state in states:
            reached.append(state._replace(chosen=(None, state.chosen)))
            reached += [left for _, left in _options(world, number, taken, state)]
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
    for state in sorted(states, key=lambda state: (-state.value, state.link + state.local)):
        link, local = max(state.link, now), max(state.local, now)
        if not any(each.link <= link and each.local <= local for each in kept):
            kept.append(state)
    if len(kept) <= KEPT:
        return kept
    step = (len(kept) - 1) / (KEPT - 1)
    return [kept[round(index * step)] for index in range(KEPT)]
