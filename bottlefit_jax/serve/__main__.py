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


def parse(argv: Sequence[str]) -> tuple["ServerOptions", str]:
    """Read the command line.

    Returns:
        The options, checked, and the level of the log.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together.
    """
    from bottlefit_jax.serve.options import ServerOptions
    from bottlefit_jax.serve.tail import BACKENDS

    parser = Parser("bottlefit_jax.serve", __doc__)
    add, default = parser.add_argument, ServerOptions()
    add("--bundle", type=Path, action="append", default=[], dest="bundles", help="a bundle, once or more often")
    add(
        "--bundles",
        type=Path,
        action="append",
        default=[],
        dest="parents",
        metavar="FOLDER",
        help="a folder that holds bundles; serve.load loads those that are put there later",
    )
    add("--port", type=int, required=True, help="0: a free one")
    add("--host", default=default.host, help="the address to listen on (default: %(default)s)")
    add("--backend", choices=[*BACKENDS], default=default.backend, help="what runs the tail (default: %(default)s)")
    add("--threads", type=int, default=default.threads, help="that run one batch (default: all cores)")
    add(
        "--providers",
        type=lambda text: tuple(text.split(",")),
        default=default.providers,
        metavar="NAME,...",
        help="what onnxruntime computes with: some of tensorrt, cuda, cpu (default: the fastest that is installed)",
    )
    add("--max-batch", type=int, default=default.max_batch, help="images that are run at once (default: %(default)s)")
    add(
        "--batch-delay-ms",
        type=float,
        default=default.batch_delay_ms,
        help="that an idle tail waits for more requests (default: %(default)g)",
    )
    add(
        "--queue",
        type=int,
        default=default.queue,
        help="the most requests that wait, whatever their deadlines (default: %(default)s)",
    )
    add("--repository-port", type=int, help="on 127.0.0.1, loads and unloads models (serve.load); 0: a free one")
    add("--metrics-port", type=int, help="serves /metrics, for Prometheus, and /healthz; 0: a free one")
    add("--log-level", choices=LOG_LEVELS, default="info", help="of the log on standard error (default: info)")
    add(
        "--log-calls",
        type=int,
        default=default.log_calls,
        help="one line for so many calls that end alike; 0: none (default: %(default)s)",
    )
    add("--tls-cert", type=Path, help="PEM file of the server's certificate, and those up to its authority")
    add("--tls-key", type=Path, help="PEM file of its key")
    add("--tls-client-ca", type=Path, help="PEM file: only clients with a certificate of this authority are served")
    add("--token-file", type=Path, help="only clients that send the token in this file are served")
    add("--allow-plaintext", action="store_true", help="without TLS on other addresses than the loopback")
    values = vars(parser.parse_args(argv))
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
