"""Serves the tails of bundles over the Open Inference Protocol v2 (gRPC), as NVIDIA Triton and KServe speak it.

    python -m bottlefit_jax.serve --bundle bundles/digits [--bundle ...] [--bundles FOLDER] --port 8001

Without TLS it listens on the loopback only, unless --allow-plaintext is given. On other addresses give --tls-cert and
--tls-key, and --tls-client-ca to serve only devices that have a certificate. With --repository-port, `python -m
bottlefit_jax.serve.load` loads bundles that are put into FOLDER later. One line says when the server listens. SIGTERM
or SIGINT stops it: it takes no more requests, finishes those that it took, and exits with code 0; before that line,
with 143 or 130. Exit code 2: one line on standard error says what is wrong.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.cli.flags import add_providers
from bottlefit_jax.errors import BottleFitError

if TYPE_CHECKING:
    from bottlefit_jax.serve.options import ServerOptions

GRACE = 60  # seconds that the last requests may take
LOG_LEVELS = ("debug", "info", "warning", "error")
FLAGS = {"bundles": "--bundle", "parents": "--bundles"}  # of the options that have another name than their flag


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        options, log_level = parse(sys.argv[1:] if argv is None else argv)
        from bottlefit_jax.serve import process
        from bottlefit_jax.serve.log import logger

        with process.json_stderr():
            logger.setLevel(log_level.upper())
            asyncio.run(serve(options))
    except BottleFitError as error:
        return print_error(error)
    return 0


def make_parser() -> Parser:
    """Return the parser of the command line."""
    from bottlefit_jax.serve.options import ServerOptions

    parser = Parser("bottlefit_jax.serve", __doc__)
    default = ServerOptions()
    add = parser.group("what to serve")
    add(
        "--bundle",
        type=Path,
        action="append",
        default=[],
        dest="bundles",
        metavar="FOLDER",
        help="a bundle, once or more often (default: none, --bundles is needed)",
    )
    add(
        "--bundles",
        type=Path,
        action="append",
        default=[],
        dest="parents",
        metavar="FOLDER",
        help="a folder that holds bundles, once or more often; serve.load loads those that are put there later "
        "(default: none, --bundle is needed)",
    )
    add = parser.group("where to listen")
    add("--port", type=int, required=True, metavar="N", help="port of the protocol; 0: a free one")
    add("--host", default=default.host, metavar="ADDRESS", help="address to listen on")
    add(
        "--repository-port",
        type=int,
        metavar="N",
        help="port on 127.0.0.1 that loads and unloads models (serve.load); 0: a free one (default: none)",
    )
    add(
        "--metrics-port",
        type=int,
        metavar="N",
        help="port that serves /metrics, for Prometheus, and /healthz; 0: a free one (default: none)",
    )
    add(
        "--metrics-host",
        metavar="ADDRESS",
        help="address of that port, which is always plaintext (default: 127.0.0.1; that of --host with "
        "--allow-plaintext)",
    )
    _add_computing(parser, default)
    _add_security(parser, default)
    return parser


def _add_computing(parser: Parser, default: "ServerOptions") -> None:
    from bottlefit_jax.serve.tail import BACKENDS

    add = parser.group("computing and queueing")
    add("--backend", choices=[*BACKENDS], default=default.backend, help="what runs the tail")
    add(
        "--threads",
        type=int,
        default=default.threads,
        metavar="N",
        help="threads that run one batch (default: all cores)",
    )
    add_providers(add)
    add("--max-batch", type=int, default=default.max_batch, metavar="N", help="most images that are run at once")
    add(
        "--batch-delay-ms",
        type=float,
        default=default.batch_delay_ms,
        metavar="MS",
        help="milliseconds that an idle tail waits for more requests",
    )
    add(
        "--queue",
        type=int,
        default=default.queue,
        metavar="N",
        help="most requests that wait, whatever their deadlines",
    )


def _add_security(parser: Parser, default: "ServerOptions") -> None:
    add = parser.group("security")
    add(
        "--tls-cert",
        type=Path,
        metavar="PEM",
        help="the server's certificate, followed by those up to its authority (default: no TLS)",
    )
    add("--tls-key", type=Path, metavar="PEM", help="the key of that certificate (default: no TLS)")
    add(
        "--tls-client-ca",
        type=Path,
        metavar="PEM",
        help="serve only clients with a certificate of this authority (default: all)",
    )
    add("--token-file", type=Path, metavar="FILE", help="serve only clients that send this file's token (default: all)")
    add("--allow-plaintext", action="store_true", help="listen without TLS on other addresses than the loopback, too")
    add = parser.group("output")
    add("--log-level", choices=LOG_LEVELS, default="info", help="level of the log on standard error")
    add(
        "--log-calls",
        type=int,
        default=default.log_calls,
        metavar="N",
        help="log one line for every N calls that end alike; 0: none",
    )


def parse(argv: Sequence[str]) -> tuple["ServerOptions", str]:
    """Read the command line.

    Returns:
        The options, checked, and the level of the log.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together.
    """
    from bottlefit_jax.serve.options import ServerOptions

    values = vars(make_parser().parse_args(argv))
    log_level = values.pop("log_level")
    options = ServerOptions(**values)
    options.check(lambda option: FLAGS.get(option, f"--{option.replace('_', '-')}"))
    return options, log_level


async def serve(options: "ServerOptions") -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UserError: an option, a file or a bundle is invalid, or a port is taken.
    """
    from bottlefit_jax.serve.log import log
    from bottlefit_jax.serve.process import raise_file_limit
    from bottlefit_jax.serve.server import Server

    files = raise_file_limit()
    stop = asyncio.Event()
    server = await Server.start(options)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    with contextlib.suppress(BrokenPipeError):  # whoever started the command may not read the line
        print(server.line, flush=True)
    log("started", address=server.address, models=server.models, open_files=files)
    await stop.wait()
    log("stopping")
    await server.stop(GRACE)
    log("stopped")


if __name__ == "__main__":
    command.run(main, extra="serve")
