"""Measures a bundle three ways over links of given rates and delays: split, local only, and sending JPEG.

    python -m bottlefit_jax.edge.bench --bundle BUNDLE --pictures FOLDER --output DIR
        [--rates 0.25,1,5,20,100] [--delays 5,40] [--count 50] [--jpeg-quality 95] [--deadline-ms 20000]
        [--watts-compute W --watts-send W --watts-idle W] [--shaper netem|process] [--device-slower TIMES]

It starts the edge server and a JPEG server itself, on this machine, behind a shaped link. Rates are Mbit/s; a delay is
one-way, in ms, added in each direction. As device and server are one machine, local only is bound to win until
--device-slower says how many times as long the device takes to compute; the report then says that it is a model.
DIR/bench.md has the tables, DIR/bench.json all numbers, DIR/latency.png the picture. What failed or was interrupted is
a row that says why. Exit code 2: one line on standard error says what is wrong; 130: interrupted, with a report of
what was measured.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import contextlib
import math
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlefit_jax import command
from bottlefit_jax.command import Parser, tell
from bottlefit_jax.errors import UserError

MOST_PICTURES = 50  # different ones, decoded in memory
NO_PICTURE = "no latency.png: it needs matplotlib, pip install matplotlib"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (without the program) and returns the exit code."""
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        return bench(parse(given), given)
    except UserError as error:
        return tell(error)
    except KeyboardInterrupt:  # while it started the servers
        print("stopped before anything was measured", file=sys.stderr)
        return 130


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together.
    """
    parser = Parser("bottlefit_jax.edge.bench", __doc__)
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the folder; exported with --local for the local row")
    add("--pictures", type=Path, required=True, help="a picture, or a folder with all that is below it")
    add("--output", type=Path, required=True, help="folder of the report; made where it is not there")
    add("--rates", default="0.25,1,5,20,100", help="Mbit/s (default: %(default)s)")
    add("--delays", default="5,40", help="ms, one way (default: %(default)s)")
    add("--count", type=int, default=50, help="pictures of each row (default: %(default)s)")
    add("--jpeg-quality", type=int, default=95, help="1 to 95, as Pillow has it (default: %(default)s)")
    add("--deadline-ms", type=float, default=20_000, help="that a picture may take (default: %(default)g)")
    for state, doing in (("compute", "computes"), ("send", "sends"), ("idle", "waits")):
        add(
            f"--watts-{state}", type=float, metavar="W", help=f"that the device takes while it {doing}, without a meter"
        )
    add("--shaper", choices=["netem", "process"], help="default: netem, or process where netem cannot be had")
    add("--device-slower", type=float, metavar="TIMES", default=1, help="as long as this machine (default: 1)")
    args = parser.parse_args(argv)
    args.rates, args.delays = _numbers("--rates", args.rates), _numbers("--delays", args.delays)
    _check(args)
    return args


def _numbers(flag: str, text: str) -> list[float]:
    """Numbers with commas between, in order, each once."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(math.isfinite(value) for value in found):
        raise UserError(f"{flag} is {text!r}; it must be numbers with commas between, such as 1,5,20")
    return found


def _check(args: argparse.Namespace) -> None:
    from bottlefit_jax.edge.bench.link import check_shape

    for rate in args.rates:
        check_shape(rate, 0)
    for delay in args.delays:
        check_shape(1, delay)
    limits = {
        "count": (1, 100_000),
        "jpeg_quality": (1, 95),
        "deadline_ms": (1, 3_600_000),
        "device_slower": (0.01, 10_000),
    }
    watts = [f"watts_{state}" for state in ("compute", "send", "idle")]
    for name, (least, most) in {**limits, **dict.fromkeys(watts, (0, 10_000))}.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} is {value:g}; it must be {least:,} to {most:,}")
    missing = [name for name in watts if getattr(args, name) is None]
    if 0 < len(missing) < len(watts):
        raise UserError(f"--{missing[0].replace('_', '-')} is missing: the three --watts go together")
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"--output {args.output} is a file; it must be a folder")


def bench(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Measures and writes the report; returns the exit code.

    Raises:
        UserError: something of `args` cannot be used, or a server does not start.
    """
    from bottlefit_jax.bundle import read_bundle
    from bottlefit_jax.edge.bench import report
    from bottlefit_jax.edge.bench.energy import Watts, find_meter
    from bottlefit_jax.edge.bench.shaper import open_link

    manifest = read_bundle(args.bundle).manifest
    images = _pictures(args.pictures, min(args.count, MOST_PICTURES))
    _make(args.output)
    meter = find_meter() if args.device_slower == 1 else None  # a meter knows nothing of a modelled device
    stated = None if args.watts_compute is None else Watts(args.watts_compute, args.watts_send, args.watts_idle)
    watts = None if meter else stated
    with interrupt.raised(), open_link(args.shaper) as (link, how), interrupt.undone(link.__exit__):
        rows, stopped, notes = _measured(args, manifest, link, images, meter, watts)
    setting = report.Setting(
        bundle=f"{manifest.name} version {manifest.version}",
        command=shlex.join(["python", "-m", "bottlefit_jax.edge.bench", *argv]),
        link=link.kind,
        link_how=how,
        counts=link.counts,
        energy=_energy(meter, watts),
        slower=args.device_slower,
        count=args.count,
        pictures=len(images),
        machine=_machine(),
        notes=notes,
    )
    model = "" if args.device_slower == 1 else f", device {args.device_slower:g} times slower (model)"
    late: list[int] = []
    with interrupt.asked(late.append):  # what was measured is written all the same
        picture = _draw(args.output / "latency.png", rows, setting.bundle + model)
        report.write(args.output, setting, rows, picture=picture)
    print(f"wrote {args.output / 'bench.md'}")
    return 130 if stopped or late else 0


def _measured(args: argparse.Namespace, manifest: Any, link: Any, images: list, meter: Any, watts: Any) -> Any:
    """Starts the servers, measures; rows, whether it was interrupted, and notes for the report."""
    from bottlefit_jax.edge.bench import measure, methods, servers
    from bottlefit_jax.edge.bench.jpeg_server import cores
    from bottlefit_jax.edge.client import EdgeClient

    with contextlib.ExitStack() as stack:
        tail = servers.edge_server(args.bundle, link)
        whole = servers.jpeg_server(args.bundle, link, tail)
        for server in (tail, whole):
            stack.enter_context(interrupt.undone(server.stop))
            stack.enter_context(server)
        (host, split_port), (_, jpeg_port) = link.through(tail.port), link.through(whole.port)
        options = {"deadline_ms": args.deadline_ms, "threads": cores()}
        client = stack.enter_context(EdgeClient(args.bundle, f"{host}:{split_port}", **options))
        jpeg = methods.Jpeg(manifest, f"{host}:{jpeg_port}", quality=args.jpeg_quality, deadline_ms=args.deadline_ms)
        stack.callback(jpeg.close)
        local = methods.Local(client)
        if manifest.local is None:
            local = f"{args.bundle} has no network to run locally: export it with --local"
        rows, stopped = measure.measure_all(
            {"split": methods.Split(client), "local": local, "jpeg": jpeg},
            [tail, whole],
            link,
            images,
            rates=args.rates,
            delays=args.delays,
            count=args.count,
            meter=meter,
            watts=watts,
            slower=args.device_slower,
        )
    return rows, stopped, _notes(args, manifest, jpeg.hops)


def _notes(args: argparse.Namespace, manifest: Any, hops: list[float]) -> list[str]:
    """What the reader of the report has to know of how it was measured."""
    hop = f", which takes {statistics.median(hops):.1f} ms at p50 of its tail's time" if hops else ""
    return [
        "Device and servers are processes on this one machine, so the device computes as fast as the server and local "
        "only is bound to win; --device-slower TIMES models a device that takes that many times as long.",
        f"JPEG: the picture at the network's input size, {manifest.image.width} x {manifest.image.height}, quality "
        f"{args.jpeg_quality}. Its server runs the bundle's own student, {manifest.head.litert} and, over loopback"
        f"{hop}, the edge server's {manifest.tail.onnx}: the same tail as split has, in the same process.",
        f"The link carries answers too: {4 * manifest.model.num_classes:,} bytes of logits for split, a label for "
        "JPEG.",
    ]


def _pictures(folder: Path, most: int) -> list:
    """At most `most` pictures spread over all that are there, decoded: uint8 [H, W, 3] each."""
    import numpy as np
    from PIL import Image as pillow

    from bottlefit_jax.edge.picture import files_in

    files = files_in([folder])
    chosen = [files[index * len(files) // min(most, len(files))] for index in range(min(most, len(files)))]
    found = []
    for file in chosen:
        try:
            with pillow.open(file) as picture:
                found.append(np.asarray(picture.convert("RGB")))
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
            raise UserError(f"{file} is not a picture that can be read: {error}") from error
    return found


def _energy(meter: Any, watts: Any) -> str | None:
    """Where the energy is from."""
    if meter is not None:
        return f"measured, {meter.source}, servers and all else on this machine included"
    if watts is None:
        return None
    return (
        f"a model, nothing was measured: time x the stated {watts.compute:g} W computing, {watts.send:g} W sending (as "
        f"long as the link takes for the bytes), {watts.idle:g} W waiting"
    )


def _machine() -> str:
    from bottlefit_jax.edge.bench.jpeg_server import cores

    return f"{platform.machine()} with {cores()} cores, {platform.system()} {platform.release()}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {folder}")


def _draw(path: Path, rows: list, title: str) -> str | None:
    """The picture's file name; None without one, and a line that says why."""
    from bottlefit_jax.edge.bench import report
    from bottlefit_jax.edge.bench.summary import crossings

    try:
        from bottlefit_jax.edge.bench import plot
    except ImportError:
        print(NO_PICTURE, file=sys.stderr)
        return None
    try:
        plot.draw(path, rows, crossings(rows), report.NAMES, f"{title}: latency against link rate")
    except UserError as error:
        print(f"no {path.name}: {error}", file=sys.stderr)
        return None
    return path.name


if __name__ == "__main__":
    command.run(main, extra="edge,serve")
