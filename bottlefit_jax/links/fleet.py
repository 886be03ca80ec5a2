"""Many devices on a few servers in virtual time: what they get answered, and how many servers they need.

Each device has its own link, policy and images, which come at random. It sends to one server, which queues and batches
as the real one does. All of them share one clock.
"""

from __future__ import annotations

import bisect
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bottlefit_jax.edge.path import Path
from bottlefit_jax.errors import UserError
from bottlefit_jax.links.options import FleetOptions, SimulateOptions
from bottlefit_jax.links.trace import Trace
from bottlefit_jax.links.virtual import with_policy
from bottlefit_jax.links.virtual_server import Events, VirtualServer
from bottlefit_jax.links.world import DRAWS, Outcome, Times, World

DEFAULT_SECONDS = 600.0
MOST_SERVERS = 100_000
DAY = 86_400.0


@dataclass(frozen=True)
class FleetOutcome:
    """What became of the images of a fleet.

    Attributes:
        servers: how many there were.
        seconds: that the simulation lasted.
        images: of all devices.
        refused: requests that the servers did not take.
        busy: share of the time in which a server's tail ran, mean, percent.
        batch: images of a batch, mean.
    """

    servers: int
    seconds: float
    images: Outcome
    refused: int
    busy: float
    batch: float

    def to_json(self) -> dict[str, Any]:
        """Return the values of a table's row."""
        times = 1e3 * np.array(self.images.times or [math.nan])
        return {
            "servers": self.servers,
            **self.images.to_json(),
            "images_per_second": self.images.images / self.seconds,
            "gigabytes_per_day": self.images.sent / self.seconds * DAY / 1e9,
            "p50_ms": float(np.percentile(times, 50)),
            "p95_ms": float(np.percentile(times, 95)),
            "refused": 100 * self.refused / max(self.images.images, 1),
            "busy": self.busy,
            "batch": self.batch,
        }


class Shifted:
    """A trace that has begun some seconds ago."""

    __slots__ = ("_passed", "_trace")

    def __init__(self, trace: Trace, seconds: float):
        """Keep a trace and the seconds that have passed."""
        self._trace, self._passed = trace, seconds

    def arrives(self, start: float, size: float) -> float:
        """Return as `Trace.arrives`."""
        return self._trace.arrives(start + self._passed, size) - self._passed


@dataclass(frozen=True)
class Device:
    """What chance gives to a device of a fleet.

    Attributes:
        trace: of its link.
        passed: seconds of the trace that are over when the fleet begins.
        first: image of the draws with which it begins, as World has it.
        begins: seconds until its first image.
    """

    trace: Trace
    passed: float
    first: int
    begins: float

    @property
    def link(self) -> Shifted:
        """Its trace, as if it began with the fleet."""
        return Shifted(self.trace, self.passed)


def devices_of(fleet: FleetOptions, traces: Sequence[Trace]) -> list[Device]:
    """Return the devices of a fleet, the same ones at each call.

    Args:
        fleet: the fleet.
        traces: of which each device has one.
    """
    chance = random.Random(0)
    devices = []
    for _ in range(fleet.devices):
        trace = chance.choice(traces)
        passed, first = chance.uniform(0, trace.seconds), chance.randrange(DRAWS)
        devices.append(Device(trace, passed, first, chance.uniform(0, fleet.every)))
    return devices


def simulate_fleet(
    fleet: FleetOptions,
    device: SimulateOptions,
    traces: Sequence[Trace],
    paths: Sequence[Path],
    times: Times,
    *,
    servers: int,
) -> FleetOutcome:
    """Simulate all devices with so many servers.

    Args:
        fleet: the fleet.
        device: each of its devices.
        traces: of which each device has one.
        paths: that a device has.
        times: of computations.
        servers: how many.
    """
    seconds = DEFAULT_SECONDS if device.seconds is None else device.seconds
    events = Events()
    machines = [VirtualServer(events, times.batch) for _ in range(servers)]
    if fleet.outage is not None:
        machines[0].fail(*fleet.outage)
    devices = []
    for number, each in enumerate(devices_of(fleet, traces)):
        world = World(
            trace=each.link,
            paths=paths,
            delay=device.delay_ms / 1e3,
            times=times,
            deadline=device.deadline_ms / 1e3,
            period=fleet.every,
            irregular=True,
            seconds=seconds,
            first=each.first,
        )
        server = machines[number % servers]
        devices.append(with_policy(world, device.bytes_per_second, events=events, server=server))
        devices[-1].start(each.begins)
    events.run()
    batches = sum(server.batches for server in machines)
    return FleetOutcome(
        servers=servers,
        seconds=seconds,
        images=Outcome.of_all(simulated.outcome for simulated in devices),
        refused=sum(server.refused for server in machines),
        busy=min(100 * sum(server.busy for server in machines) / (servers * seconds), 100.0),
        batch=sum(server.images for server in machines) / max(batches, 1),
    )


def fewest_servers(
    run: Callable[[int], FleetOutcome], goal: float, progress: Callable[[str], None] = lambda line: None
) -> list[FleetOutcome]:
    """Search for the smallest number of servers that answers enough images by the deadline.

    Args:
        run: simulates a number of servers.
        goal: percent.
        progress: takes a line for each simulation.

    Returns:
        The outcomes of all numbers that were tried, by number; the smallest that keeps the goal is among them.

    Raises:
        UserError: more servers bring nothing more, and the goal is not kept.
    """
    tried: dict[int, FleetOutcome] = {}

    def keeps(servers: int) -> bool:
        if servers not in tried:
            tried[servers] = run(servers)
            progress(f"{counted(servers)}: {tried[servers].images.percent_in_time:.3f} % in time")
        return tried[servers].images.percent_in_time >= goal

    most = 1
    while not keeps(most):
        if most >= 4 and tried[most].busy < 5:
            raise UserError(
                f"--goal {goal:g} is out of reach: {most:,} servers run for {tried[most].busy:.1f} % of the time, and "
                f"{tried[most].images.percent_in_time:.3f} % are in time; the links and the devices set the limit"
            )
        if most >= MOST_SERVERS:
            raise UserError(f"--goal {goal:g} is not kept by {most:,} servers, the most that are tried")
        most *= 2
    bisect.bisect_left(range(most // 2 + 1, most), True, key=keeps)
    return [tried[servers] for servers in sorted(tried)]


def run_fleet(
    fleet: FleetOptions, device: SimulateOptions, traces: Sequence[Trace], paths: Sequence[Path], times: Times
) -> dict[str, Any]:
    """Simulate a fleet with its servers, or with as few as keep the goal.

    Args:
        fleet: the fleet.
        device: each of its devices.
        traces: of which each device has one.
        paths: that a device has.
        times: of computations.

    Returns:
        {"devices", "every", "deadline_ms", "goal", "fewest": the number found or None, "rows": [FleetOutcome as JSON]}.

    Raises:
        UserError: the goal is out of reach.
    """
    run = partial(simulate_fleet, fleet, device, traces, paths, times)
    if fleet.servers is not None:
        outcomes, fewest = [run(servers=fleet.servers)], None
    else:
        outcomes = fewest_servers(
            lambda servers: run(servers=servers), fleet.goal, lambda line: print(line, file=sys.stderr, flush=True)
        )
        fewest = next(each.servers for each in outcomes if each.images.percent_in_time >= fleet.goal)
    return {
        "devices": fleet.devices,
        "every": fleet.every,
        "deadline_ms": device.deadline_ms,
        "goal": fleet.goal if fleet.servers is None else None,
        "fewest": fewest,
        "rows": [each.to_json() for each in outcomes],
    }


def counted(servers: int) -> str:
    """Return a number of servers in words."""
    return f"{servers:,} server{'' if servers == 1 else 's'}"


def table(found: dict[str, Any]) -> str:
    """Return what `run_fleet` found as lines."""
    devices, every, deadline = found["devices"], found["every"], found["deadline_ms"]
    lines = [
        f"{devices:,} devices, an image every {every:g} s each, deadlines of {deadline:g} ms",
        "servers  in time, %  top-1, %  images/s  bytes  GB a day  p50, ms  p95, ms  refused, %  busy, %  batch",
    ]
    for row in found["rows"]:
        lines.append(
            f"{row['servers']:>7,}  {row['in_time']:>10.3f}  {row['top1']:>8.2f}  {row['images_per_second']:>8,.1f}  "
            f"{row['bytes']:>5,.0f}  {row['gigabytes_per_day']:>8,.2f}  {row['p50_ms']:>7.1f}  {row['p95_ms']:>7.1f}  "
            f"{row['refused']:>10.2f}  {row['busy']:>7.1f}  {row['batch']:>5.2f}"
        )
    last = found["rows"][-1]
    lines.append(f"paths: {', '.join(f'{path} {share:.1f} %' for path, share in last['paths'].items())}")
    if found["fewest"] is not None:
        lines.append(f"goal of {found['goal']:g} %: {counted(found['fewest'])}")
    return "\n".join(lines)
