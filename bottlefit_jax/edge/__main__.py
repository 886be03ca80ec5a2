"""Classifies pictures: the head runs here, the tail on a server.

    python -m bottlefit_jax.edge --bundle BUNDLE --server HOST:PORT PICTURE_OR_FOLDER ... [--json]
    python -m bottlefit_jax.edge --bundle BUNDLE --server HOST:PORT --camera 0
    python -m bottlefit_jax.edge --bundle BUNDLE --local PICTURE_OR_FOLDER ...

Exit code 1: a picture could not be read, or got no answer within the deadline, as a line on standard error says; the
others were classified. Exit code 2: one line on standard error says what cannot be used.
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottlefit_jax.command import Parser, tell
from bottlefit_jax.errors import UserError

if TYPE_CHECKING:
    from bottlefit_jax.edge.client import Prediction

WIDEST = 40  # characters of the column of labels; a longer one moves the rest of its line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (without the program) and returns the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would log what we say
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        return run(args)
    except UserError as error:
        return tell(error)
    except KeyboardInterrupt:  # the way to end a camera's run
        return 0 if args.camera is not None else 130
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      UserError: flags that are unknown, missing or do not go together.
    """
    parser = Parser("bottlefit_jax.edge", __doc__)
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE_OR_FOLDER")
    parser.add_argument("--bundle", type=Path, required=True, help="its folder")
    parser.add_argument("--server", metavar="HOST:PORT", help="where its tail is served")
    parser.add_argument("--local", action="store_true", help="run the whole network here, without a server")
    parser.add_argument("--camera", type=int, metavar="N", help="classify what camera N sees, until Ctrl-C")
    parser.add_argument("--frames", type=int, metavar="N", help="with --camera: stop after N")
    parser.add_argument("--json", action="store_true", help="a JSON object a line instead of a table")
    parser.add_argument("--top", type=int, default=1, metavar="N", help="show the N likeliest classes (default 1)")
    parser.add_argument("--deadline-ms", type=float, default=2000, help="for a picture with its retries (default 2000)")
    parser.add_argument("--compress", action="store_true", help="requests, by gRPC's gzip")
    parser.add_argument("--tls", action="store_true", help="encrypt; the next three imply it")
    parser.add_argument("--tls-ca", type=Path, metavar="PEM", help="who may have signed the server's certificate")
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="this device's certificate")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="and its key")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="holds the bearer token to send")
    parser.add_argument("--threads", type=int, default=1, help="that the head may use (default 1)")
    args = parser.parse_args(argv)
    if args.local == (args.server is not None):
        raise UserError("give --server HOST:PORT, or --local to run the whole network here")
    if bool(args.pictures) == (args.camera is not None):
        raise UserError("give pictures or folders, or --camera 0")
    if args.top < 1 or (args.frames is not None and args.frames < 1):
        raise UserError("--top and --frames must be at least 1")
    return args


def run(args: argparse.Namespace) -> int:
    """Classifies what the command line names; 1 where a picture failed."""
    try:
        from bottlefit_jax.edge.client import EdgeClient, NoAnswer, PictureError
        from bottlefit_jax.edge.picture import files_in
    except ImportError as error:
        raise UserError(f"{error}: pip install 'bottlefit-jax[edge]'") from None
    files = files_in(args.pictures)
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
    )
    failed = False
    with client:
        if not args.local:
            client.connect()
        show = _as_json if args.json else _Table(files, client.manifest.labels)
        for name, image in _images(args, files):
            try:
                prediction = client.infer_local(image) if args.local else client.infer(image)
            except (PictureError, NoAnswer) as error:
                failed = True
                tell(error if name in str(error) else f"{name}: {error}")
            else:
                print(show(name, prediction, client.top(prediction, args.top)), flush=True)
    return int(failed)


def _images(args: argparse.Namespace, files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Names and pictures: the files, or the camera's frames."""
    if args.camera is None:
        yield from ((str(file), file) for file in files)
        return
    from bottlefit_jax.edge import camera

    for count, frame in enumerate(itertools.islice(camera.frames(args.camera), args.frames), 1):
        yield f"camera {args.camera} frame {count}", frame


def _as_json(name: str, prediction: "Prediction", top: list[tuple[str, int, float]]) -> str:
    """One line."""
    found = {
        "file": name,
        "label": prediction.label,
        "index": prediction.index,
        "probability": prediction.probability,
        "timings": dataclasses.asdict(prediction.timings),
        "bytes_sent": dataclasses.asdict(prediction.bytes_sent),
    }
    if len(top) > 1:
        found["top"] = [dict(zip(("label", "index", "probability"), one, strict=True)) for one in top]
    return json.dumps(found)


class _Table:
    """Lines whose columns are as wide as the names that may come; the first brings the heading with it."""

    def __init__(self, files: Sequence[Path], labels: Sequence[str]):
        self._file = max((len(str(file)) for file in files), default=20)
        self._label = min(max([len(label) for label in labels] + [5]), WIDEST)
        self._heading = self._line("file", "label", "probability", "ms", "bytes") + "\n"

    def __call__(self, name: str, prediction: "Prediction", top: list[tuple[str, int, float]]) -> str:
        total, sent = f"{prediction.timings.total:.1f}", f"{prediction.bytes_sent.total:,}"
        lines = [self._line(name, top[0][0], f"{top[0][2]:.4f}", total, sent)]
        lines += [self._line("", label, f"{probability:.4f}", "", "").rstrip() for label, _, probability in top[1:]]
        heading, self._heading = self._heading, ""
        return heading + "\n".join(lines)

    def _line(self, file: str, label: str, probability: str, ms: str, sent: str) -> str:
        return f"{file:<{self._file}}  {label:<{self._label}}  {probability:>11}  {ms:>8}  {sent:>9}"


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from None


if __name__ == "__main__":
    sys.exit(main())
