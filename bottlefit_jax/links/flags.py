"""The measurement's command line."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.cli.command import Parser
from bottlefit_jax.errors import UserError

RATES, DELAYS = "0.25,1,5,20,100", "5,40"
FILES = ("bench.json", "bench.md", "latency.png")  # of a report
WATTS = ("watts_compute", "watts_send", "watts_idle")
SHAPING = ("rates", "delays", "shaper", *WATTS)  # these know nothing of a link that is what it is
SECURITY = ("tls", "tls_ca", "tls_cert", "tls_key", "token_file")


def parse(argv: Sequence[str], description: str | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together, or a folder that holds a report.
    """
    parser = Parser("bottlefit_jax.links.bench", description)
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the folder; exported with --local for the local row")
    add("--images", type=Path, required=True, help="an image, or a folder with all that is below it")
    add("--output", type=Path, required=True, help="folder of the report; made where it is not there")
    add("--overwrite", action="store_true", help="replace the report that --output holds")
    add("--server", metavar="HOST:PORT", help="an edge server on another machine, over the link as it is")
    add(
        "--jpeg-server", metavar="HOST:PORT", help="with --server: the JPEG server beside it; without one, no JPEG rows"
    )
    add("--rates", help=f"Mbit/s (default: {RATES})")
    add("--delays", help=f"ms, one way (default: {DELAYS})")
    add("--count", type=int, default=50, help="images of each row (default: %(default)s)")
    add("--jpeg-quality", type=int, default=95, help="1 to 95, as Pillow has it (default: %(default)s)")
    add("--deadline-ms", type=float, default=20_000, help="that an image may take (default: %(default)g)")
    for state, doing in (("compute", "computes"), ("send", "sends"), ("idle", "waits")):
        add(
            f"--watts-{state}", type=float, metavar="W", help=f"that the device takes while it {doing}, without a meter"
        )
    add("--shaper", choices=["netem", "process"], help="default: netem, or process where netem cannot be had")
    add("--device-slower", type=float, metavar="TIMES", default=1, help="as long as this machine (default: 1)")
    add("--tls", action="store_true", help="with --server: encrypt; the next three imply it")
    add("--tls-ca", type=Path, metavar="PEM", help="who may have signed the server's certificate")
    add("--tls-cert", type=Path, metavar="PEM", help="this device's certificate")
    add("--tls-key", type=Path, metavar="PEM", help="and its key")
    add("--token-file", type=Path, metavar="FILE", help="holds the bearer token to send")
    args = parser.parse_args(argv)
    _check_server(args)
    args.rates = [None] if args.server else _numbers("--rates", RATES if args.rates is None else args.rates)
    args.delays = [None] if args.server else _numbers("--delays", DELAYS if args.delays is None else args.delays)
    _check(args)
    _check_output(args)
    return args


def token(path: Path | None) -> str | None:
    """The bearer token that a file holds; None without a file.

    Raises:
        UserError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the token in {path}: {error}") from error


def _numbers(flag: str, text: str) -> list[float]:
    """Numbers with commas between, in order, each once."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(math.isfinite(value) for value in found):
        raise UserError(f"{flag} is {text!r}; it must be numbers with commas between, such as 1,5,20")
    return found


def _check_server(args: argparse.Namespace) -> None:
    """What goes only with a server elsewhere, and what only without."""
    wrong = SHAPING if args.server else ("jpeg_server", *SECURITY)
    given = [name for name in wrong if getattr(args, name) not in (None, False)]
    if given and args.server:
        raise UserError(f"{_flag(given[0])} does not go with --server: the link to it is as it is, and is not shaped")
    if given:
        raise UserError(f"{_flag(given[0])} goes with --server HOST:PORT only")


def _check(args: argparse.Namespace) -> None:
    from bottlefit_jax.links.proxy import check_shape

    for rate in args.rates if args.server is None else ():
        check_shape(rate, 0)
    for delay in args.delays if args.server is None else ():
        check_shape(1, delay)
    limits = {
        "count": (1, 100_000),
        "jpeg_quality": (1, 95),
        "deadline_ms": (1, 3_600_000),
        "device_slower": (0.01, 10_000),
    }
    for name, (least, most) in {**limits, **dict.fromkeys(WATTS, (0, 10_000))}.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"{_flag(name)} is {value:g}; it must be {least:,} to {most:,}")
    missing = [name for name in WATTS if getattr(args, name) is None]
    if 0 < len(missing) < len(WATTS):
        raise UserError(f"{_flag(missing[0])} is missing: the three --watts go together")


def _check_output(args: argparse.Namespace) -> None:
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"--output {args.output} is a file; it must be a folder")
    held = [name for name in FILES if os.path.lexists(args.output / name)]
    if held and not args.overwrite:
        raise UserError(
            f"--output {args.output} already holds {held[0]} of a measurement; name another folder, or give --overwrite"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
