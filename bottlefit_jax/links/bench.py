"""Measures a bundle three ways over links of given rates and delays: split, local only, and sending JPEG.

    python -m bottlefit_jax.links.bench --bundle BUNDLE --images FOLDER --output DIR
        [--rates 0.25,1,5,20,100] [--delays 5,40] [--count 50] [--jpeg-quality 95] [--deadline-ms 20000]
        [--watts-compute W --watts-send W --watts-idle W] [--shaper netem|process] [--device-slower TIMES]
        [--overwrite]
    python -m bottlefit_jax.links.bench --bundle BUNDLE --images FOLDER --output DIR --server HOST:PORT
        [--jpeg-server HOST:PORT] [--tls-ca PEM --tls-cert PEM --tls-key PEM] [--token-file FILE]

It starts the edge server and a JPEG server itself, on this machine, behind a shaped link. Rates are Mbit/s; a delay is
one-way, in ms, added in each direction. As device and server are one machine, local only is bound to win until
--device-slower says how many times as long the device takes to compute; the report then says that it is a model.

With --server it runs on the device itself and measures the link as it is. The server is started there as for any
device; JPEG needs its own beside it, `python -m bottlefit_jax.links.jpeg_server --help`, and else is left out.

DIR/bench.md has the tables, DIR/bench.json all numbers, DIR/latency.png the plot. What failed or was interrupted is
a row that says why. Two methods are compared where the 95 % intervals of their medians part, and nowhere else. Exit
code 2: one line on standard error says what is wrong; 130: interrupted, with a report of what was measured.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import contextlib
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import print_error
from bottlefit_jax.errors import BottleFitError, UserError
from bottlefit_jax.links.flags import parse, token

MOST_IMAGES = 50  # different ones, decoded in memory
NO_JPEG = (
    "no --jpeg-server: start one beside the edge server, python -m bottlefit_jax.links.jpeg_server "
    "--bundle BUNDLE --host HOST --port 8002 --tail HOST:PORT"
)
NO_FIGURE = "no latency.png: it needs matplotlib, pip install matplotlib"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        return bench(parse(given, __doc__), given)
    except BottleFitError as error:
        return print_error(error)
    except KeyboardInterrupt:  # while it started the servers
        print("stopped before anything was measured", file=sys.stderr)
        return 130


def bench(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Measures and writes the report; returns the exit code.

    Raises:
        UserError: something of `args` cannot be used, or a server does not start.
    """
    from bottlefit_jax.bundle import read_bundle
    from bottlefit_jax.links import report
    from bottlefit_jax.links.energy import Watts, find_meter
    from bottlefit_jax.links.proxy import DirectLink
    from bottlefit_jax.links.shaper import open_link

    # beside a server elsewhere a bundle may hold the head alone
    manifest = read_bundle(args.bundle, verify=True if args.server is None else lambda manifest: []).manifest
    images = _images(args.images, min(args.count, MOST_IMAGES))
    _make(args.output)
    meter = find_meter() if args.device_slower == 1 else None  # a meter knows nothing of a modelled device
    stated = None if args.watts_compute is None else Watts(args.watts_compute, args.watts_send, args.watts_idle)
    watts = None if meter else stated
    with interrupt.raised(), contextlib.ExitStack() as stack:
        if args.server is None:
            link, how = stack.enter_context(open_link(args.shaper))
            stack.enter_context(interrupt.undone(link.__exit__))
        else:
            link, how = DirectLink(), f"from this machine to {args.server} as it is"
        rows, stopped, notes = _measured(args, manifest, link, images, meter, watts)
    setting = report.Setting(
        bundle=f"{manifest.name} version {manifest.version}",
        command=shlex.join(["python", "-m", "bottlefit_jax.links.bench", *argv]),
        link=link.kind,
        link_how=how,
        counts=link.counts,
        energy=_energy(meter, watts, alone=args.server is not None),
        slower=args.device_slower,
        count=args.count,
        images=len(images),
        machine=_machine(),
        notes=notes,
    )
    model = "" if args.device_slower == 1 else f", device {args.device_slower:g} times slower (model)"
    late: list[int] = []
    with interrupt.asked(late.append):  # what was measured is written all the same
        figure = _draw(args.output / "latency.png", rows, setting.bundle + model)
        if figure is None:
            (args.output / "latency.png").unlink(
                missing_ok=True
            )  # that of an earlier measurement would be taken for ours
        report.write(args.output, setting, rows, figure=figure)
    print(f"wrote {args.output / 'bench.md'}")
    return 130 if stopped or late else 0


def _measured(args: argparse.Namespace, manifest: Any, link: Any, images: list, meter: Any, watts: Any) -> Any:
    """Reaches the servers, measures; rows, whether it was interrupted, and notes for the report."""
    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.links import measure, methods
    from bottlefit_jax.links.jpeg_server import cores

    with contextlib.ExitStack() as stack:
        ours, address, jpeg_address = _servers(args, link, stack)
        security = {name: getattr(args, name) for name in ("tls", "tls_ca", "tls_cert", "tls_key")}
        options = {"deadline_ms": args.deadline_ms, "threads": cores(), "token": token(args.token_file), **security}
        client = stack.enter_context(EdgeClient(args.bundle, address, **options))
        if args.server is not None:
            client.connect()  # a wrong address is one line, not a report of rows without numbers
        local: Any = methods.Local(client)
        if manifest.local is None:
            local = f"{args.bundle} has no network to run locally: export it with --local"
        jpeg: Any = NO_JPEG
        if jpeg_address is not None:
            jpeg = methods.Jpeg(manifest, jpeg_address, quality=args.jpeg_quality, deadline_ms=args.deadline_ms)
            stack.callback(jpeg.close)
        rows, stopped = measure.measure_all(
            {"split": methods.Split(client), "local": local, "jpeg": jpeg},
            ours,
            link,
            images,
            rates=args.rates,
            delays=args.delays,
            count=args.count,
            meter=meter,
            watts=watts,
            slower=args.device_slower,
        )
    return rows, stopped, _notes(args, manifest, None if isinstance(jpeg, str) else jpeg.hops)


def _servers(args: argparse.Namespace, link: Any, stack: contextlib.ExitStack) -> tuple[list, str, str | None]:
    """The servers that are started here, and the addresses of the edge server and of the JPEG server."""
    from bottlefit_jax.links import servers

    if args.server is not None:
        return [], args.server, args.jpeg_server
    tail = servers.edge_server(args.bundle, link)
    whole = servers.jpeg_server(args.bundle, link, tail)
    for server in (tail, whole):
        stack.enter_context(interrupt.undone(server.stop))
        stack.enter_context(server)
    (host, split_port), (_, jpeg_port) = link.through(tail.port), link.through(whole.port)
    return [tail, whole], f"{host}:{split_port}", f"{host}:{jpeg_port}"


def _notes(args: argparse.Namespace, manifest: Any, hops: list[float] | None) -> list[str]:
    """What the reader of the report has to know of how it was measured."""
    if args.server is not None:
        notes = [f"The device is this machine, the edge server is at {args.server}."]
    elif args.device_slower == 1:
        notes = [
            "Device and servers are processes on this one machine, so the device computes as fast as the server and "
            "local only is bound to win; --device-slower TIMES models a device that takes that many times as long."
        ]
    else:
        notes = [
            "Device and servers are processes on this one machine; what the device computed is counted "
            f"{args.device_slower:g} times, what the servers computed once."
        ]
    if hops is not None:
        hop = f", which takes {statistics.median(hops):.1f} ms at p50 of its tail's time" if hops else ""
        notes.append(
            f"JPEG: the image at the network's input size, {manifest.image.width} x {manifest.image.height}, quality "
            f"{args.jpeg_quality}. Its server runs the bundle's own student, {manifest.head.litert} and, beside "
            f"it{hop}, the edge server's {manifest.tail.onnx}: the same tail as split has, in the same process."
        )
    answers = "The link carries answers too: "
    label = ", a label for JPEG" if hops is not None else ""
    return [*notes, f"{answers}{4 * manifest.model.num_classes:,} bytes of logits for split{label}."]


def _images(folder: Path, most: int) -> list:
    """At most `most` images spread over all that are there, decoded: uint8 [H, W, 3] each."""
    import numpy as np
    from PIL import Image as pillow

    from bottlefit_jax.edge.image import files_in

    files = files_in([folder])
    chosen = [files[index * len(files) // min(most, len(files))] for index in range(min(most, len(files)))]
    found = []
    for file in chosen:
        try:
            with pillow.open(file) as image:
                found.append(np.asarray(image.convert("RGB")))
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
            raise UserError(f"{file} is not an image that can be read: {error}") from error
    return found


def _energy(meter: Any, watts: Any, *, alone: bool) -> str | None:
    """Where the energy is from; `alone`: the servers run elsewhere."""
    if meter is not None:
        return f"measured, {meter.source}, {'' if alone else 'servers and '}all else on this machine included"
    if watts is None:
        return None
    return (
        f"a model, nothing was measured: time x the stated {watts.compute:g} W computing, {watts.send:g} W sending (as "
        f"long as the link takes for the bytes), {watts.idle:g} W waiting"
    )


def _machine() -> str:
    from bottlefit_jax.links.jpeg_server import cores

    return f"{platform.machine()} with {cores()} cores, {platform.system()} {platform.release()}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {folder}")


def _draw(path: Path, rows: list, title: str) -> str | None:
    """The image's file name; None without one, and a line that says why."""
    if all(row.rate_mbit is None for row in rows):
        return None  # a single link has no line over rates
    from bottlefit_jax.links import report
    from bottlefit_jax.links.summary import crossings

    try:
        from bottlefit_jax.links import plot
    except ImportError:
        print(NO_FIGURE, file=sys.stderr)
        return None
    try:
        plot.draw(path, rows, crossings(rows), report.NAMES, f"{title}: latency against link rate")
    except BottleFitError as error:
        print(f"no {path.name}: {error}", file=sys.stderr)
        return None
    return path.name


if __name__ == "__main__":
    command.run(main, extra="edge,serve")
