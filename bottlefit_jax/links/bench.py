"""Measure a bundle over links: split, local only and sending JPEG; or what a policy reaches on a link that fails.

    python -m bottlefit_jax.links.bench --bundle BUNDLE --images FOLDER --output DIR
        [--rates 0.25,1,5,20,100] [--delays 5,40] [--count 50] [--jpeg-quality 95] [--deadline-ms 20000]
        [--watts-compute W --watts-send W --watts-idle W] [--shaper netem|process] [--device-slower TIMES]
        [--overwrite]
    python -m bottlefit_jax.links.bench --bundle BUNDLE --images FOLDER --output DIR --server HOST:PORT
        [--jpeg-server HOST:PORT] [--tls-ca PEM --tls-cert PEM --tls-key PEM] [--token-file FILE]
    python -m bottlefit_jax.links.bench --bundle BUNDLE --images FOLDER --output DIR --trace FILE_OR_FOLDER
        --deadline-ms D [--fps 30] [--seconds S] [--delays 5] [--without-local]

Without --server, the edge server and a JPEG server are started on this machine, behind a shaped link. Rates are in
Mbit/s. A delay is one-way, in ms, and added in each direction. Device and server are then the same machine, so local
only always wins, unless --device-slower models a device that computes that many times as long; the report says so.

With --server the command runs on the device and measures the link as it is. The edge server is started there as for any
device. The JPEG rows need a JPEG server beside it: `python -m bottlefit_jax.links.jpeg_server --help`.

With --trace the link has the rates of a CSV file with the columns seconds,mbit_per_s, outages included, between real
processes. The path of each image is chosen by the policy (auto), then it is each rate in turn, then the local network,
over the same seconds. DIR/frames.csv has every image, DIR/TRACE-DELAYms.png the policy's over time.

DIR/bench.md has the tables, DIR/bench.json all numbers, DIR/latency.png the plot. Where a measurement failed or was
interrupted, its row gives the reason. One method is called faster than another only where the 95 % intervals of their
medians do not overlap. Exit code 2: one line on standard error gives the reason; 130: interrupted, and the report has
what was measured until then.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import contextlib
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import print_error
from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.links import flags
from bottlefit_jax.links.options import BenchOptions, ReplayOptions

if TYPE_CHECKING:
    from bottlefit_jax.bundle import Manifest
    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.links.energy import Meter, Watts
    from bottlefit_jax.links.methods import Method
    from bottlefit_jax.links.servers import Server
    from bottlefit_jax.links.summary import Row

NO_JPEG = (
    "no --jpeg-server: start one beside the edge server, python -m bottlefit_jax.links.jpeg_server "
    "--bundle BUNDLE --host HOST --port 8002 --tail HOST:PORT"
)
NO_FIGURE = "no latency.png: it needs matplotlib, pip install matplotlib"


def make_parser() -> command.Parser:
    """Return the parser of the command line."""
    return flags.make_parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        command_line = shlex.join(["python", "-m", "bottlefit_jax.links.bench", *arguments])
        options = flags.parse(arguments, __doc__)
        if isinstance(options, ReplayOptions):
            from bottlefit_jax.links.replay import replay

            return replay(options, command_line=command_line)
        return bench(options, command_line=command_line)
    except BottleFitError as error:
        return print_error(error)
    except KeyboardInterrupt:  # while the servers start
        print("stopped before anything was measured", file=sys.stderr)
        return 130


def bench(options: BenchOptions, *, command_line: str) -> int:
    """Measure, and write the report.

    Args:
        options: what to measure.
        command_line: for the report.

    Returns:
        The exit code: 130 after an interruption, else 0.

    Raises:
        BottleFitError: an option is invalid, or a server does not start.
    """
    from bottlefit_jax.bundle import read_bundle
    from bottlefit_jax.links import report
    from bottlefit_jax.links.energy import find_meter
    from bottlefit_jax.links.inputs import make_folder, read_images
    from bottlefit_jax.links.link import DirectLink
    from bottlefit_jax.links.machine import describe_machine
    from bottlefit_jax.links.shaper import open_link

    # with a server elsewhere, the bundle on the device may have the head's file alone
    verify = True if options.server is None else lambda manifest: []
    manifest = read_bundle(options.bundle, verify=verify).manifest
    images = read_images(options.images, options.count)
    make_folder(options.output)
    meter = find_meter() if options.device_slower == 1 else None  # a meter cannot measure a modelled device
    watts = None if meter else options.watts
    with interrupt.raised(), contextlib.ExitStack() as stack:
        if options.server is None:
            link, how = stack.enter_context(open_link(options.shaper))
            stack.enter_context(interrupt.undone(link.close))
        else:
            link, how = DirectLink(), f"from this machine to {options.server} as it is"
        rows, stopped, notes = _measure(options, manifest, link, images, meter, watts)
    setting = report.Setting(
        bundle=f"{manifest.name} version {manifest.version}",
        command=command_line,
        link=link.kind,
        link_how=how,
        counts=link.counts,
        energy=_energy(meter, watts, alone=options.server is not None),
        slower=options.device_slower,
        count=options.count,
        images=len(images),
        machine=describe_machine(),
        notes=notes,
    )
    model = "" if options.device_slower == 1 else f", device {options.device_slower:g} times slower (model)"
    late_signals: list[int] = []
    with interrupt.asked(late_signals.append):  # a signal now does not lose the report
        figure = _draw(options.output / "latency.png", rows, setting.bundle + model)
        if figure is None:  # an earlier measurement's plot must not look like this one's
            (options.output / "latency.png").unlink(missing_ok=True)
        report.write(options.output, setting, rows, figure=figure)
    print(f"wrote {options.output / 'bench.md'}")
    return 130 if stopped or late_signals else 0


def _measure(
    options: BenchOptions,
    manifest: "Manifest",
    link: Any,
    images: list,
    meter: "Meter | None",
    watts: "Watts | None",
) -> tuple[list["Row"], bool, list[str]]:
    """Return the rows, whether the measurement was interrupted, and notes for the report."""
    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.edge.policy import FIXED
    from bottlefit_jax.links import measure, methods
    from bottlefit_jax.links.machine import cores

    with contextlib.ExitStack() as stack:
        servers, address, jpeg_address = _servers(options, link, stack)
        client = EdgeClient(
            options.bundle,
            address,
            deadline_ms=options.deadline_ms,
            threads=cores(),
            policy=FIXED,
            **options.for_client(),
        )
        stack.enter_context(client)
        if options.server is not None:
            client.connect()  # a wrong address is one line, not a report of rows without numbers
        jpeg: Any = NO_JPEG
        if jpeg_address is not None:
            quality, deadline_ms = options.jpeg_quality, options.deadline_ms
            jpeg = methods.Jpeg(manifest, jpeg_address, quality=quality, deadline_ms=deadline_ms)
            stack.callback(jpeg.close)
        shaped = options.server is None
        rows, stopped = measure.measure_all(
            {"split": methods.Split(client), "local": _local(client), "jpeg": jpeg},
            servers,
            link,
            images,
            rates=options.rates if shaped else [None],
            delays=options.delays if shaped else [None],
            count=options.count,
            meter=meter,
            watts=watts,
            slower=options.device_slower,
        )
    return rows, stopped, _notes(options, manifest, None if isinstance(jpeg, str) else jpeg.hops)


def _local(client: "EdgeClient") -> "Method | str":
    """Return the method that runs the whole network here, or why there is none."""
    from bottlefit_jax.links.methods import Local

    try:
        client.load_local()
    except BottleFitError as error:
        return str(error)
    return Local(client)


def _servers(options: BenchOptions, link: Any, stack: contextlib.ExitStack) -> tuple[list["Server"], str, str | None]:
    """Start the servers, if they belong here; return them, and the addresses of edge server and JPEG server."""
    from bottlefit_jax.links import servers

    if options.server is not None:
        return [], options.server, options.jpeg_server
    tail = servers.edge_server(options.bundle, link)
    jpeg = servers.jpeg_server(options.bundle, link, tail)
    for server in (tail, jpeg):
        stack.enter_context(interrupt.undone(server.stop))
        stack.enter_context(server)
    (host, split_port), (_, jpeg_port) = link.through(tail.port), link.through(jpeg.port)
    return [tail, jpeg], f"{host}:{split_port}", f"{host}:{jpeg_port}"


def _notes(options: BenchOptions, manifest: "Manifest", hops: list[float] | None) -> list[str]:
    """Return what a reader has to know about the measurement, a sentence or two each."""
    if options.server is not None:
        notes = [f"The device is this machine, the edge server is at {options.server}."]
    elif options.device_slower == 1:
        notes = [
            "Device and servers are processes on this one machine: the device computes as fast as the server, so local "
            "only always wins; --device-slower TIMES models a device that takes that many times as long."
        ]
    else:
        notes = [
            "Device and servers are processes on this one machine; what the device computed is counted "
            f"{options.device_slower:g} times, what the servers computed once."
        ]
    if hops is not None:
        head = manifest.head_file("litert").file
        hop = f", which takes {statistics.median(hops):.1f} ms at p50 of its tail's time" if hops else ""
        notes.append(
            f"JPEG: the image at the network's input size, {manifest.image.width} x {manifest.image.height}, quality "
            f"{options.jpeg_quality}. Its server runs the bundle's own student, {head} and, beside "
            f"it{hop}, the edge server's {manifest.tail.onnx}: the same tail as split has, in the same process."
        )
    answers = "The link carries answers too: "
    label = ", a label for JPEG" if hops is not None else ""
    return [*notes, f"{answers}{4 * manifest.model.num_classes:,} bytes of logits for split{label}."]


def _energy(meter: "Meter | None", watts: "Watts | None", *, alone: bool) -> str | None:
    """Return where the energy is from, in words; None without.

    Args:
        meter: that measured it.
        watts: that model it.
        alone: the servers run on another machine.
    """
    if meter is not None:
        return f"measured, {meter.source}, {'' if alone else 'servers and '}all else on this machine included"
    if watts is None:
        return None
    return (
        f"a model, nothing was measured: time x the stated {watts.compute:g} W computing, {watts.send:g} W sending (as "
        f"long as the link takes for the bytes), {watts.idle:g} W waiting"
    )


def _draw(path: Path, rows: list, subject: str) -> str | None:
    """Draw the plot and return its file name; None without one, and a line on standard error gives the reason."""
    if all(row.rate_mbit is None for row in rows):
        return None  # one link gives no line over rates
    from bottlefit_jax.links import report
    from bottlefit_jax.links.summary import crossings

    try:
        from bottlefit_jax.links import plot
    except ImportError:
        print(NO_FIGURE, file=sys.stderr)
        return None
    try:
        plot.draw(path, rows, crossings(rows), report.NAMES, subject)
    except BottleFitError as error:
        print(f"no {path.name}: {error}", file=sys.stderr)
        return None
    return path.name


if __name__ == "__main__":
    command.run(main, extra="edge,serve")
