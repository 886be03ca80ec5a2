"""The device's command: its flags, its loop over images or frames, its output."""

import argparse
import json
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.edge import flags
from bottlefit_jax.edge.options import AUTO_IN_FLIGHT, IN_FLIGHT, MAX_IN_FLIGHT, ClassifyOptions
from bottlefit_jax.edge.path import LOCAL
from bottlefit_jax.edge.policy import FIXED
from bottlefit_jax.edge.runtimes import AUTO
from bottlefit_jax.errors import UserError
from bottlefit_jax.onnx_session import check_providers

if TYPE_CHECKING:
    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.edge.prediction import Prediction

LABEL_WIDTH = 40  # the widest column of labels; a longer label moves the rest of its line
INT32_MAX = 2**31 - 1
CONNECT_SECONDS = 2.0  # for a server to answer at the start
ONLY_CAMERA = ("frames", "in_flight", "camera_size", "camera_rate", "health")
# flag -> smallest and largest value
LIMITS = {
    "deadline_ms": (1, 3_600_000),
    "threads": (1, 1024),
    "top": (1, INT32_MAX),
    "frames": (1, INT32_MAX),
    "in_flight": (1, MAX_IN_FLIGHT),
    "tail_version": (1, INT32_MAX),
    "camera_rate": (0.01, 1000),
    "bytes_per_second": (1, 1e12),
}


def make_parser(description: str | None) -> Parser:
    """Return the parser of the command line."""
    parser = Parser("bottlefit_jax.edge", description)
    _add_images(parser)
    add = parser.group(flags.DEVICE)
    add("--bundle", type=flags.path, required=True, metavar="FOLDER", help="the bundle")
    add(
        "--local",
        action="store_true",
        help="run the whole network here; with --server, only where the server's answer would come too late",
    )
    flags.add_runtime(parser)
    add = parser.group(flags.SERVER)
    add("--server", metavar="HOST:PORT", help="the server of the bundle's tail (default: none, --local is needed)")
    add("--tail-version", type=int, metavar="N", help="version of the tail (default: the newest for this head)")
    add("--wait", action="store_true", help="wait for a server that does not answer at the start")
    add("--compress", action="store_true", help="compress requests by gRPC's gzip")
    flags.add_security(parser)
    _add_rates(parser)
    _add_output(parser)
    return parser


def _add_images(parser: Parser) -> None:
    add = parser.group("what to classify")
    add(
        "images",
        nargs="*",
        type=flags.path,
        metavar="IMAGE_OR_FOLDER",
        help="images, and folders with all images below them (default: none, --camera is needed)",
    )
    add(
        "--camera",
        metavar="SOURCE",
        help="classify the frames of a camera until Ctrl-C: its number, a device such as /dev/video0, a URL, or a "
        "GStreamer pipeline that ends in appsink (default: none, images are needed)",
    )
    add("--frames", type=int, metavar="N", help="with --camera: stop after N frames (default: until Ctrl-C)")
    add(
        "--in-flight",
        type=int,
        metavar="N",
        help="with --camera: frames that are on their way to the server at once, at most (default: "
        f"{AUTO_IN_FLIGHT} with --policy auto, else {IN_FLIGHT})",
    )
    add(
        "--camera-size",
        type=_size,
        metavar="WxH",
        help="size of the camera's frames, pixels (default: the camera's own)",
    )
    add(
        "--camera-rate",
        type=float,
        metavar="N",
        help="frames a second that the camera shall give (default: the camera's own)",
    )


def _add_rates(parser: Parser) -> None:
    add = parser.group("time and rates")
    add(
        "--deadline-ms",
        type=float,
        default=ClassifyOptions.deadline_ms,
        metavar="MS",
        help="deadline of an image, with retries, milliseconds",
    )
    add(
        "--policy",
        metavar="auto|local|RATE",
        help="the path of each image; auto chooses the most accurate that is likely to meet the deadline (default: "
        "auto with --server, else local)",
    )
    add("--rate", metavar="ID", help="the bundle's rate to send at, or raw: one byte a value (default: --policy auto)")
    add(
        "--bytes-per-second",
        type=float,
        metavar="N",
        help="bytes a second that --policy auto may send (default: no limit)",
    )


def _add_output(parser: Parser) -> None:
    add = parser.group(flags.OUTPUT)
    add(
        "--json",
        action="store_true",
        help="print a JSON object a line instead of a table; of a camera also wherever the output is no terminal",
    )
    add(
        "--top",
        type=int,
        metavar="N",
        help="ask for the N likeliest classes and show them (default: 5, of which the table shows one)",
    )
    add(
        "--device-id",
        default=socket.gethostname(),
        metavar="NAME",
        help="name of the device in a camera's JSON (default: the host name)",
    )
    add(
        "--health",
        type=flags.path,
        metavar="FILE",
        help="with --camera: write to FILE each second how the run goes (default: no file)",
    )


def parse(argv: Sequence[str], description: str | None) -> ClassifyOptions:
    """Read the command line.

    Raises:
        UserError: a flag is unknown, missing, out of range, or does not go with another.
    """
    args = make_parser(description).parse_args(argv)
    check_providers(args.providers, "--providers")
    _resolve_policy(args)
    _check(args)
    return ClassifyOptions(**vars(args))


def _check(args: argparse.Namespace) -> None:
    """Check what is classified, and the ranges of numbers.

    Raises:
        UserError: a flag is out of range, or does not go with another.
    """
    if bool(args.images) == (args.camera is not None):
        raise UserError("give images or folders, or --camera 0")
    if args.camera is None:
        for name in ONLY_CAMERA:
            if getattr(args, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} goes with --camera SOURCE only")
    for name, (smallest, largest) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not smallest <= value <= largest:  # NaN is not
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {value} is out of range: give {smallest:,} to {largest:,}")


def _resolve_policy(args: argparse.Namespace) -> None:
    """Make of --server, --local, --policy and --rate what EdgeClient takes.

    Raises:
        UserError: they do not go together.
    """
    if args.policy == LOCAL:
        args.server, args.local = None, True
    elif args.server is None and not args.local:
        raise UserError("give --server HOST:PORT, or --local to run the whole network here")
    elif args.policy is not None and args.server is None:
        raise UserError(f"--policy {args.policy} needs --server HOST:PORT")
    if args.policy is not None and args.rate is not None:
        raise UserError("--policy names the rate as well: leave --rate out")
    if args.bytes_per_second is not None and (args.server is None or (args.rate or args.policy or AUTO) != AUTO):
        raise UserError("--bytes-per-second belongs to --policy auto, with --server HOST:PORT and without --rate")
    if args.server is None:
        args.local, args.policy = False, FIXED  # no server means that all runs here
    elif args.policy == AUTO or (args.policy is None and args.rate is None):
        args.policy = AUTO
    elif args.local:
        raise UserError("with one rate for all images --local is not used: leave it out, or give --policy auto")
    else:
        args.rate, args.policy = args.policy or args.rate, FIXED


def run(options: ClassifyOptions) -> int:
    """Classify the images or frames of the options and print a line for each.

    Returns:
        The exit code: 1 where an image failed, else 0.

    Raises:
        UserError: no other image would succeed either.
    """
    from bottlefit_jax.edge import live
    from bottlefit_jax.edge.client import ImageError, ProtocolError, Unavailable
    from bottlefit_jax.edge.image import files_in

    _print_any_name()
    files = files_in(options.images)
    failed = False
    with _client(options) as client:
        if options.server is not None and not options.local:  # with a local network the server may come later
            connect(client, CONNECT_SECONDS, wait=options.wait)
        if options.camera is not None:
            return live.run(client, options)
        show = _as_json if options.json else _Table(files, client.manifest.labels, options.top or 1)
        for file in files:
            try:
                prediction = client.infer_local(file) if options.server is None else client.infer(file)
            except (ImageError, Unavailable, ProtocolError) as error:
                failed = True
                print_error(error if str(file) in str(error) else f"{file}: {error}")
            else:
                print(show(str(file), prediction), flush=True)
    return int(failed)


def connect(client: "EdgeClient", seconds: float, *, wait: bool = False) -> None:
    """Check that the server is there: an image's deadline, which is that of a call, may be too short to connect in.

    Args:
        client: of the server.
        seconds: for it to answer.
        wait: however long that takes; a line on standard error says so.

    Raises:
        Unavailable: it did not answer.
    """
    from bottlefit_jax.edge.client import Unavailable

    said, until = False, time.monotonic() + seconds
    while True:
        try:
            client.connect()
            return
        except Unavailable as error:
            if not wait and time.monotonic() >= until:
                raise
            if wait and not said:
                print(f"waiting: {error}", file=sys.stderr, flush=True)
            said = wait


def _client(options: ClassifyOptions) -> "EdgeClient":
    """Return the client, with its models open."""
    from bottlefit_jax.edge.client import TOP, EdgeClient

    client = EdgeClient(
        options.bundle,
        options.server,
        deadline_ms=options.deadline_ms,
        compress=options.compress,
        **options.for_client(),
        threads=options.threads,
        version=options.tail_version,
        rate=options.rate,
        policy=options.policy,
        bytes_per_second=options.bytes_per_second,
        local=options.local,
        top=TOP if options.top is None else options.top,
        runtime=options.runtime,
        providers=options.providers,
    )
    if options.server is None:
        client.load_local()
    return client


def _print_any_name() -> None:
    """Let standard output print, as escapes, characters that the terminal's encoding does not have."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # absent where a program has replaced the stream
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _as_json(name: str, prediction: "Prediction") -> str:
    r"""Return a JSON object in one line. Bytes of a name that are not UTF-8 are Python's surrogates, `\udc80` on."""
    return json.dumps({"file": name, **prediction.to_json()})


class _Table:
    """Aligned lines, whose columns fit all files and labels. The first line comes with the heading."""

    def __init__(self, files: Sequence[Path], labels: Sequence[str], count: int):
        self._count = count  # classes of an image
        self._file_width = max((len(_shown(str(file))) for file in files), default=20)
        self._label_width = min(max([len(label) for label in labels] + [5]), LABEL_WIDTH)
        self._heading = self._line("file", "label", "probability", "ms", "bytes") + "\n"

    def __call__(self, name: str, prediction: "Prediction") -> str:
        top = prediction.top[: self._count]
        total, sent = f"{prediction.timings.total:.1f}", f"{prediction.bytes_sent.total:,}"
        lines = [self._line(_shown(name), top[0][0], f"{top[0][2]:.4f}", total, sent)]
        lines += [self._line("", label, f"{probability:.4f}", "", "").rstrip() for label, _, probability in top[1:]]
        heading, self._heading = self._heading, ""
        return heading + "\n".join(lines)

    def _line(self, file: str, label: str, probability: str, ms: str, sent: str) -> str:
        return f"{file:<{self._file_width}}  {label:<{self._label_width}}  {probability:>11}  {ms:>8}  {sent:>9}"


def _shown(name: str) -> str:
    """Return a name in one line, with escapes for what the terminal cannot show, such as bytes that are not UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    characters = (char if char.isprintable() else repr(char)[1:-1] for char in name)
    return "".join(characters).encode(encoding, "backslashreplace").decode(encoding)


def _size(text: str) -> tuple[int, int]:
    """Return the two numbers of 1280x720."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: give one such as 1280x720")
    return int(width), int(height)
