"""What the device's command does: its flags, its loop over images or frames, its table."""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import UserError

if TYPE_CHECKING:
    from bottlefit_jax.edge.client import Prediction

WIDEST = 40  # characters of the column of labels; a longer one moves the rest of its line
LARGEST = 2**31 - 1
# flag -> smallest and largest value
LIMITS = {
    "deadline_ms": (1, 3_600_000),
    "threads": (1, 1024),
    "top": (1, LARGEST),
    "frames": (1, LARGEST),
    "tail_version": (1, LARGEST),
}


def parse(argv: Sequence[str], description: str | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together.
    """
    parser = Parser("bottlefit_jax.edge", description)
    add = parser.add_argument
    add("images", nargs="*", type=_path, metavar="IMAGE_OR_FOLDER")
    add("--bundle", type=_path, required=True, help="its folder")
    add("--server", metavar="HOST:PORT", help="where its tail is served")
    add("--tail-version", type=int, metavar="N", help="of the tail (default: the newest for this head)")
    add("--local", action="store_true", help="run the whole network here, without a server")
    add(
        "--camera",
        metavar="SOURCE",
        help="classify what a camera sees, until Ctrl-C: its number, a device such as /dev/video0, a URL, or a "
        "GStreamer pipeline that ends in appsink",
    )
    add("--frames", type=int, metavar="N", help="with --camera: stop after N")
    add("--json", action="store_true", help="a JSON object a line instead of a table")
    add("--top", type=int, default=1, metavar="N", help="show the N likeliest classes (default 1)")
    add("--deadline-ms", type=float, default=2000, help="for an image with its retries (default 2000)")
    add("--compress", action="store_true", help="requests, by gRPC's gzip")
    add("--tls", action="store_true", help="encrypt; the next three imply it")
    add("--tls-ca", type=_path, metavar="PEM", help="who may have signed the server's certificate")
    add("--tls-cert", type=_path, metavar="PEM", help="this device's certificate")
    add("--tls-key", type=_path, metavar="PEM", help="and its key")
    add("--token-file", type=_path, metavar="FILE", help="holds the bearer token to send")
    add("--threads", type=int, default=1, help="that the head may use (default 1)")
    args = parser.parse_args(argv)
    if args.local == (args.server is not None):
        raise UserError("give --server HOST:PORT, or --local to run the whole network here")
    if bool(args.images) == (args.camera is not None):
        raise UserError("give images or folders, or --camera 0")
    for name, (smallest, largest) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not smallest <= value <= largest:  # NaN is not
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {value} is out of range: give {smallest:,} to {largest:,}")
    return args


def run(args: argparse.Namespace) -> int:
    """Classifies what the command line names; 1 where an image failed."""
    from bottlefit_jax.edge.client import EdgeClient, ImageError, ProtocolError, Unavailable
    from bottlefit_jax.edge.image import files_in

    _print_any_name()
    files = files_in(args.images)
    client = EdgeClient(
        args.bundle,
        args.server,
        deadline_ms=args.deadline_ms,
        compress=args.compress,
        tls=args.tls,
        tls_ca=args.tls_ca,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        token=None if args.token_file is None else _token(args.token_file),
        threads=args.threads,
        version=args.tail_version,
    )
    failed = False
    with client:
        if not args.local:
            client.connect()
        show = _as_json if args.json else _Table(files, client.manifest.labels)
        for name, image in _images(args, files):
            try:
                prediction = client.infer_local(image) if args.local else client.infer(image)
            except (ImageError, Unavailable, ProtocolError) as error:
                failed = True
                print_error(error if name in str(error) else f"{name}: {error}")
            else:
                print(show(name, prediction, client.top(prediction, args.top)), flush=True)
    return int(failed)


def _print_any_name() -> None:
    """Lets standard output take names that the terminal's encoding has no characters for, as escapes."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # a program may have put another stream there
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _images(args: argparse.Namespace, files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Names and images: the files, or the camera's frames."""
    if args.camera is None:
        yield from ((str(file), file) for file in files)
        return
    from bottlefit_jax.edge import camera

    name = camera.name_of(args.camera)
    for count, frame in enumerate(itertools.islice(camera.frames(args.camera), args.frames), 1):
        yield f"{name} frame {count}", frame


def _as_json(name: str, prediction: "Prediction", top: list[tuple[str, int, float]]) -> str:
    """One line. Bytes of a name that are not UTF-8 come out as Python's surrogates, `\\udc80` to `\\udcff`."""
    line = {
        "file": name,
        "label": prediction.label,
        "index": prediction.index,
        "probability": prediction.probability,
        "timings": dataclasses.asdict(prediction.timings),
        "bytes_sent": dataclasses.asdict(prediction.bytes_sent),
    }
    if len(top) > 1:
        line["top"] = [dict(zip(("label", "index", "probability"), one, strict=True)) for one in top]
    return json.dumps(line)


class _Table:
    """Lines whose columns are as wide as the names that may come; the first brings the heading with it."""

    def __init__(self, files: Sequence[Path], labels: Sequence[str]):
        self._file = max((len(_shown(str(file))) for file in files), default=20)
        self._label = min(max([len(label) for label in labels] + [5]), WIDEST)
        self._heading = self._line("file", "label", "probability", "ms", "bytes") + "\n"

    def __call__(self, name: str, prediction: "Prediction", top: list[tuple[str, int, float]]) -> str:
        total, sent = f"{prediction.timings.total:.1f}", f"{prediction.bytes_sent.total:,}"
        lines = [self._line(_shown(name), top[0][0], f"{top[0][2]:.4f}", total, sent)]
        lines += [self._line("", label, f"{probability:.4f}", "", "").rstrip() for label, _, probability in top[1:]]
        heading, self._heading = self._heading, ""
        return heading + "\n".join(lines)

    def _line(self, file: str, label: str, probability: str, ms: str, sent: str) -> str:
        return f"{file:<{self._file}}  {label:<{self._label}}  {probability:>11}  {ms:>8}  {sent:>9}"


def _shown(name: str) -> str:
    """A name on one line: escapes for what a terminal cannot show, such as bytes that are not UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    characters = (one if one.isprintable() else repr(one)[1:-1] for one in name)
    return "".join(characters).encode(encoding, "backslashreplace").decode(encoding)


def _path(text: str) -> Path:
    """A path, with the home folder where it begins with ~, which shells leave alone in --flag=~/path."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: a name that begins so
        return Path(text)


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from None
