"""The measurement's command line: flags -> BenchOptions, or with --trace ReplayOptions."""

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from bottlefit_jax.cli.command import Parser
from bottlefit_jax.edge.flags import add_security
from bottlefit_jax.edge.options import SECURITY
from bottlefit_jax.errors import UserError
from bottlefit_jax.links.energy import Watts
from bottlefit_jax.links.link import check_shape
from bottlefit_jax.links.options import DELAYS, RATES, BenchOptions, ReplayOptions

REPORT_FILES = ("bench.json", "bench.md", "frames.csv", "latency.png")
WATTS = ("watts_compute", "watts_send", "watts_idle")
SHAPING = ("rates", "delays", "shaper", *WATTS)  # for a link that is shaped here
ONLY_TRACE = ("fps", "seconds", "without_local")
NOT_TRACE = ("server", "jpeg_server", "rates", "count", "jpeg_quality", "device_slower", "shaper", *WATTS, *SECURITY)
# flag -> smallest and largest value
LIMITS = {
    "count": (1, 100_000),
    "jpeg_quality": (1, 95),
    "deadline_ms": (1, 3_600_000),
    "device_slower": (0.01, 10_000),
    "fps": (0.01, 1000),
    "seconds": (1, 1_000_000),
    **dict.fromkeys(WATTS, (0, 10_000)),
}


def parse(argv: Sequence[str], description: str | None) -> BenchOptions | ReplayOptions:
    """Read the command line; with --trace the options are those of a replay.

    Raises:
        UserError: a flag is unknown, missing, out of range or does not go with another, or --output holds a report.
    """
    args = make_parser(description).parse_args(argv)
    if args.trace is not None:
        return _replay(args)
    _refuse(args, ONLY_TRACE, "goes with --trace FILE_OR_FOLDER only")
    _check_server(args)
    rates, delays = _numbers("--rates", args.rates, RATES), _numbers("--delays", args.delays, DELAYS)
    for rate in rates:
        check_shape(rate, 0)
    for delay in delays:
        check_shape(1, delay)
    check_limits(vars(args), LIMITS)
    watts = _watts(args)
    _check_output(args.output, overwrite=args.overwrite)
    return BenchOptions(**{**_given(args, BenchOptions), "rates": rates, "delays": delays, "watts": watts})


def _replay(args: argparse.Namespace) -> ReplayOptions:
    """Return the options of a replay."""
    _refuse(args, NOT_TRACE, "does not go with --trace")
    if args.deadline_ms is None:
        raise UserError("--deadline-ms is missing: with --trace it says what is in time")
    delays = _numbers("--delays", args.delays, ReplayOptions.delays)
    for delay in delays:
        check_shape(1, delay)
    check_limits(vars(args), LIMITS)
    _check_output(args.output, overwrite=args.overwrite)
    return ReplayOptions(**{**_given(args, ReplayOptions), "delays": delays})


def _given(args: argparse.Namespace, options: type) -> dict[str, Any]:
    """Return the flags that were given, or have a default, and that the options have."""
    names = {field.name for field in fields(options)}
    return {name: value for name, value in vars(args).items() if name in names and value is not None}


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise UserError where one of these flags was given."""
    for name in names:
        if getattr(args, name) not in (None, False):
            raise UserError(f"{_flag(name)} {why}")


def make_parser(description: str | None) -> Parser:
    """Return the parser of the command line."""
    parser = Parser("bottlefit_jax.links.bench", description)
    add = parser.group("what to measure")
    add(
        "--bundle",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the bundle; exported with --local for the local row",
    )
    add("--images", type=Path, required=True, metavar="PATH", help="an image, or a folder with all images below it")
    add("--count", type=int, metavar="N", help=f"images of each row (default: {BenchOptions.count})")
    add(
        "--jpeg-quality",
        type=int,
        metavar="Q",
        help=f"quality of the JPEG rows, 1 to 95 as Pillow has it (default: {BenchOptions.jpeg_quality})",
    )
    add(
        "--deadline-ms",
        type=float,
        metavar="MS",
        help="deadline of an image, with retries, milliseconds; required with --trace "
        f"(default: {BenchOptions.deadline_ms:g})",
    )
    add = parser.group("the link")
    add("--rates", metavar="N,...", help=f"rates of the link, Mbit/s (default: {_joined(RATES)})")
    add(
        "--delays",
        metavar="MS,...",
        help=f"delays of the link, one way, milliseconds (default: {_joined(DELAYS)}; with --trace 5)",
    )
    add(
        "--shaper",
        choices=["netem", "process"],
        help="what slows the link down (default: netem, or process where netem does not work)",
    )
    add = parser.group("a trace of a link, replayed")
    add(
        "--trace",
        type=Path,
        metavar="PATH",
        help="a CSV file with the columns seconds,mbit_per_s, or a folder of them (default: constant --rates)",
    )
    add("--fps", type=float, metavar="N", help="with --trace: images a second (default: one after the other)")
    add(
        "--seconds",
        type=float,
        metavar="S",
        help="with --trace: seconds of each trace, which repeats at its end (default: once)",
    )
    add("--without-local", action="store_true", help="with --trace: as if the bundle had no network to run locally")
    _add_device(parser)
    add = parser.group("the server")
    add(
        "--server",
        metavar="HOST:PORT",
        help="an edge server on another machine, over the link as it is (default: start one here)",
    )
    add("--jpeg-server", metavar="HOST:PORT", help="with --server: the JPEG server beside it (default: no JPEG rows)")
    add_security(parser, "with --server: ")
    add = parser.group("output")
    add("--output", type=Path, required=True, metavar="FOLDER", help="the report's folder; created where it is missing")
    add("--overwrite", action="store_true", help="replace the report that --output holds")
    return parser


def _add_device(parser: Parser) -> None:
    add = parser.group("the device")
    add(
        "--device-slower",
        type=float,
        metavar="TIMES",
        help="how many times as long as this machine the device computes (default: 1)",
    )
    for state, activity in (("compute", "computes"), ("send", "sends"), ("idle", "waits")):
        add(
            f"--watts-{state}",
            type=float,
            metavar="W",
            help=f"power of the device while it {activity}, watts; used where there is no meter (default: no energy)",
        )


def _numbers(flag: str, text: str | None, default: Sequence[float]) -> Sequence[float]:
    """Return the numbers of a comma-separated list, sorted, without duplicates."""
    if text is None:
        return default
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(value) for value in numbers):
        raise UserError(f"{flag} is {text!r}; it must be numbers with commas between, such as 1,5,20")
    return tuple(numbers)


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _check_server(args: argparse.Namespace) -> None:
    """Refuse flags that do not go with --server, and flags that go only with it."""
    if args.server:
        _refuse(args, SHAPING, "does not go with --server: the link to it is measured as it is")
    else:
        _refuse(args, ("jpeg_server", *SECURITY), "goes with --server HOST:PORT only")


def _watts(args: argparse.Namespace) -> Watts | None:
    values = [getattr(args, name) for name in WATTS]
    if all(value is None for value in values):
        return None
    if None in values:
        raise UserError(f"{_flag(WATTS[values.index(None)])} is missing: the three --watts go together")
    return Watts(*values)


def _check_output(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; it must be a folder")
    files = [name for name in REPORT_FILES if os.path.lexists(folder / name)]
    if files and not overwrite:
        raise UserError(
            f"--output {folder} already holds {files[0]} of a measurement; name another folder, or give --overwrite"
        )


def check_limits(values: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> None:
    """Raise a UserError for a flag whose value is below the smallest or above the largest; None is not given."""
    for name, (smallest, largest) in limits.items():
        value = values[name]
        if value is not None and not smallest <= value <= largest:  # false for NaN
            raise UserError(f"{_flag(name)} is {value:g}; it must be {smallest:,} to {largest:,}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
