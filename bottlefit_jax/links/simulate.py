"""Simulate a device on a link whose rate changes: what the policy reaches, beside every fixed path and an oracle.

    python -m bottlefit_jax.links.simulate --bundle BUNDLE --trace FILE_OR_FOLDER --deadline-ms D
        [--delay-ms 5] [--fps 30] [--seconds S] [--without-local] [--device-slower TIMES] [--bytes-per-second N]
        [--head-ms MS --local-ms MS --tail-ms MS] [--json]

A trace is a CSV file with the columns seconds,mbit_per_s; a rate holds until the next line. Time is virtual. How long
head, local network and tail take is measured here first, unless flags say it. Without --fps the next image is taken
when the one before is answered or its deadline is over; with it, images come at that rate, and several may be on their
way.

`in time`: percent of all images that were answered by the deadline. `top-1`: the mean over all images of the top-1 of
the path that answered, as the manifest has it, 0 where none did. `oracle`: choices of somebody who knows the trace in
advance.

    python -m bottlefit_jax.links.simulate ... --devices N [--servers S | --goal 99.9] [--every 10]
        [--outage FROM-TO] [--plot FILE.png]

simulates a fleet: each device has one of the traces, and sends to one of S servers, which queue and batch as
`bottlefit_jax.serve` does. Without --servers the smallest number is searched that keeps the goal, percent of images
answered by their deadlines. It lasts 600 seconds unless --seconds says otherwise.

Exit code 2: one line on standard error gives the reason.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.cli import command
from bottlefit_jax.edge.path import LOCAL, paths_of
from bottlefit_jax.edge.path import Path as PredictionPath
from bottlefit_jax.edge.policy import Choice
from bottlefit_jax.errors import BottleFitError, UserError
from bottlefit_jax.links.flags import check_limits
from bottlefit_jax.links.fleet import MOST_SERVERS, run_fleet
from bottlefit_jax.links.fleet import table as fleet_table
from bottlefit_jax.links.options import FleetOptions, SimulateOptions
from bottlefit_jax.links.oracle import oracle
from bottlefit_jax.links.trace import Trace, read_traces
from bottlefit_jax.links.virtual import Chooser, Simulation, with_policy
from bottlefit_jax.links.world import Outcome, Times, World

AUTO, ORACLE = "auto", "oracle"

# flag -> smallest and largest value
LIMITS = {
    "deadline_ms": (0.1, 3_600_000),
    "delay_ms": (0, 60_000),
    "fps": (0.01, 1000),
    "seconds": (1, 1_000_000),
    "device_slower": (0.01, 10_000),
    "head_ms": (0.001, 3_600_000),
    "local_ms": (0.001, 3_600_000),
    "tail_ms": (0.001, 3_600_000),
    "bytes_per_second": (1, 1e12),
    "devices": (1, 1_000_000),
    "servers": (1, MOST_SERVERS),
    "goal": (0, 100),
    "every": (0.001, 86_400),
}
FLEET = ("servers", "goal", "every", "outage", "plot")  # flags that need --devices


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        options, fleet, as_json = parse(sys.argv[1:] if argv is None else argv)
        if fleet is None:
            found, table = simulate(options), _table
        else:
            found, table = simulate_fleet(fleet, options), fleet_table
    except BottleFitError as error:
        return command.print_error(error)
    print(json.dumps(found) if as_json else table(found))
    return 0


def make_parser() -> command.Parser:
    """Return the parser of the command line."""
    parser, device, fleet = command.Parser("bottlefit_jax.links.simulate", __doc__), SimulateOptions, FleetOptions
    add = parser.group("what to simulate")
    add("--bundle", type=Path, required=True, metavar="FOLDER", help="the bundle")
    add(
        "--trace",
        type=Path,
        required=True,
        metavar="PATH",
        help="a CSV file with the columns seconds,mbit_per_s; or a folder of them",
    )
    add(
        "--deadline-ms",
        type=float,
        required=True,
        metavar="MS",
        help="deadline of an image, from when it is taken, milliseconds",
    )
    add(
        "--delay-ms", type=float, default=device.delay_ms, metavar="MS", help="delay of the link, one way, milliseconds"
    )
    add("--fps", type=float, metavar="N", help="images a second (default: one after the other)")
    add("--seconds", type=float, metavar="S", help="seconds of a trace, which repeats at its end (default: once)")
    add = parser.group("the device")
    add("--without-local", action="store_true", help="as if the bundle had no network to run locally")
    add(
        "--device-slower",
        type=float,
        metavar="TIMES",
        default=device.device_slower,
        help="how many times as long as this machine the device computes",
    )
    for part, words in (("head", "the head"), ("local", "the local network"), ("tail", "the tail on the server")):
        add(
            f"--{part}-ms",
            type=float,
            metavar="MS",
            help=f"milliseconds that {words} takes (default: measured here)",
        )
    add(
        "--bytes-per-second",
        type=float,
        metavar="N",
        help="bytes a second that the policy may send (default: no limit)",
    )
    add = parser.group("a fleet")
    add("--devices", type=int, metavar="N", help="simulate a fleet of N devices (default: one device, no fleet)")
    add("--servers", type=int, metavar="N", help="with --devices: servers (default: as few as keep --goal)")
    add(
        "--goal",
        type=float,
        metavar="PERCENT",
        help=f"with --devices: percent of images in time (default: {fleet.goal:g})",
    )
    add(
        "--every",
        type=float,
        metavar="S",
        help=f"with --devices: seconds between images, mean (default: {fleet.every:g})",
    )
    add(
        "--outage",
        type=_outage,
        metavar="FROM-TO",
        help="with --devices: seconds in which one server refuses all (default: no outage)",
    )
    add = parser.group("output")
    add("--json", action="store_true", help="print a JSON object instead of a table")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="with --devices: draw servers against images in time, as PNG (default: no plot)",
    )
    return parser


def parse(argv: Sequence[str]) -> tuple[SimulateOptions, FleetOptions | None, bool]:
    """Read the command line; return the options of a device, those of a fleet, and whether to print JSON.

    Raises:
        UserError: a flag is unknown, missing or out of range.
    """
    args = vars(make_parser().parse_args(argv))
    check_limits(args, LIMITS)
    as_json = args.pop("json")
    fleet = {name: value for name in ("devices", *FLEET) if (value := args.pop(name)) is not None}
    if fleet and "devices" not in fleet:
        raise UserError(f"--{next(iter(fleet))} goes with --devices N only")
    if fleet and args["fps"] is not None:
        raise UserError("--fps does not go with --devices: --every says how often images come")
    if {"servers", "goal"} <= fleet.keys():
        raise UserError("--servers and --goal exclude each other: the goal searches for the number of servers")
    return SimulateOptions(**args), FleetOptions(**fleet) if fleet else None, as_json


def _outage(text: str) -> tuple[float, float]:
    """Return the two numbers of 60-120."""
    begin, _, end = text.partition("-")
    try:
        times = float(begin), float(end)
    except ValueError:
        times = (1.0, 0.0)
    if not 0 <= times[0] < times[1] < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: give seconds such as 60-120")
    return times


def simulate_fleet(fleet: FleetOptions, device: SimulateOptions) -> dict[str, Any]:
    """Simulate a fleet.

    Args:
        fleet: how many devices and servers.
        device: each of its devices, and the bundle.

    Returns:
        As `fleet.run_fleet`.

    Raises:
        UserError: the bundle or a trace is invalid, the goal is out of reach, or the plot cannot be written.
    """
    traces, paths, times = _opened(device)
    found = run_fleet(fleet, device, traces, paths, times)
    if fleet.plot is not None:
        from bottlefit_jax.links.fleet_plot import draw  # which needs matplotlib

        draw(fleet.plot, found)
    return found


def _opened(options: SimulateOptions) -> tuple[list[Trace], Sequence[PredictionPath], Times]:
    """Return the traces, the paths of a device, and the times of its computations."""
    traces = read_traces(options.trace)
    manifest = read_bundle(options.bundle, verify=lambda manifest: []).manifest
    local = manifest.local is not None and not options.without_local
    return traces, paths_of(manifest, local=local), times_of(options, local=local)


def simulate(options: SimulateOptions) -> dict[str, Any]:
    """Simulate every trace.

    Args:
        options: what to simulate.

    Returns:
        {"auto", "oracle", "local", "fixed": {rate: ...}, "times_ms": {...}}, "local" None without that network. Each
        outcome is `Outcome.to_json` over the images of all traces.

    Raises:
        UserError: the bundle or a trace is invalid.
    """
    traces, paths, times = _opened(options)
    outcomes: dict[str, list[Outcome]] = {}
    for trace in traces:
        world = World(
            trace=trace,
            paths=paths,
            delay=options.delay_ms / 1e3,
            times=times,
            deadline=options.deadline_ms / 1e3,
            period=0.0 if options.fps is None else 1 / options.fps,
            seconds=trace.seconds if options.seconds is None else options.seconds,
        )
        for name, outcome in _run_all(world, options.bytes_per_second).items():
            outcomes.setdefault(name, []).append(outcome)
    found = {name: Outcome.of_all(each).to_json() for name, each in outcomes.items()}
    return {
        "auto": found.pop(AUTO),
        "oracle": found.pop(ORACLE),
        "local": found.pop(LOCAL, None),
        "fixed": found,
        "times_ms": {name: None if value is None else 1e3 * value for name, value in asdict(times).items()},
    }


def _run_all(world: World, bytes_per_second: float | None) -> dict[str, Outcome]:
    """Return the outcomes of the policy, the oracle, and each path alone."""
    outcomes = {
        AUTO: with_policy(world, bytes_per_second).run(),
        ORACLE: oracle(world).run(),
    }
    for path in world.paths:
        outcomes[path.name] = Simulation(world, _always(path)).run()
    return outcomes


def _always(path: PredictionPath) -> Chooser:
    """Return a choice of one path; a device that has the local network alone takes an image when that is free."""
    choice, wait = Choice(path, "fixed"), Choice(None, "the local network still runs")
    return lambda image, now, left, local_begins: wait if path.work == LOCAL and local_begins > 0 else choice


def times_of(options: SimulateOptions, *, local: bool) -> Times:
    """Return the times that the options give, and measure the others."""
    given = {"head": options.head_ms, "local": options.local_ms, "tail": options.tail_ms}
    known = {name: ms / 1e3 for name, ms in given.items() if ms is not None}
    if len(known) < 3 - (not local):
        from bottlefit_jax.links.times import measure_times  # which needs the runtimes

        measured = asdict(measure_times(options.bundle, slower=options.device_slower))
        known = {**measured, **known, "more": None if "tail" in known else measured["more"]}
    return Times(known["head"], known.get("local") if local else None, known["tail"], known.get("more"))


def _table(found: dict[str, Any]) -> str:
    """Return the outcomes as lines."""
    rows = [(AUTO, found["auto"]), (ORACLE, found["oracle"]), *found["fixed"].items()]
    rows += [] if found["local"] is None else [(LOCAL, found["local"])]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'path':<{width}}  in time, %  top-1, %  bytes of an image  answered by"]
    for name, row in rows:
        paths = ", ".join(f"{path} {share:.1f} %" for path, share in row["paths"].items())
        lines.append(f"{name:<{width}}  {row['in_time']:>10.2f}  {row['top1']:>8.2f}  {row['bytes']:>17,.0f}  {paths}")
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in found["times_ms"].items() if ms is not None)
    return "\n".join([*lines, f"computing: {times}"])


if __name__ == "__main__":
    command.run(main, extra="edge,serve")
