"""Serve the alternative to splitting: a server that takes a JPEG and runs the whole network.

    python -m bottlefit_jax.links.jpeg_server --bundle BUNDLE --port 8002 --tail localhost:8001 [--host HOST]

The measurement starts it itself, except with --server: then start it on that machine, with a --host that the device can
reach. It has neither encryption nor authentication: end it after the measurement.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.cli import command
from bottlefit_jax.errors import BottleFitError

TAIL_DEADLINE_MS = 10_000.0


def make_parser() -> command.Parser:
    """Return the parser of the command line."""
    parser = command.Parser("bottlefit_jax.links.jpeg_server", __doc__)
    add = parser.group("what to serve")
    add("--bundle", required=True, type=Path, metavar="FOLDER", help="the bundle that the edge server serves")
    add("--tail", required=True, metavar="HOST:PORT", help="the edge server")
    add = parser.group("where to listen")
    add("--port", required=True, metavar="N", help="port to listen on")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) until SIGTERM or Ctrl-C; return the exit code."""
    try:
        args = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
        serve_until_signal(args.bundle, f"{args.host}:{args.port}", tail=args.tail)
    except BottleFitError as error:
        return command.print_error(error)
    return 0


def serve_until_signal(bundle: Path, address: str, *, tail: str) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        bundle: the folder.
        address: HOST:PORT to listen on.
        tail: HOST:PORT of the edge server.

    Raises:
        BottleFitError: the bundle or an address is invalid, or the edge server does not answer.
    """
    from bottlefit_jax.bundle import RAW
    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.links.jpeg import serve
    from bottlefit_jax.links.machine import cores

    stop = threading.Event()
    with (
        interrupt.asked(lambda signum: stop.set()),
        EdgeClient(bundle, tail, deadline_ms=TAIL_DEADLINE_MS, threads=cores(), rate=RAW) as client,
    ):
        client.connect()
        server = serve(client, address)
        print(f"JPEG server on {address}", flush=True)
        stop.wait()
        server.stop(1).wait()


if __name__ == "__main__":
    command.run(main, extra="edge")
