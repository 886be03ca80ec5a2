"""Serves the tails of bundles over the Open Inference Protocol v2 (gRPC), as NVIDIA Triton and KServe speak it.

    python -m bottlefit_jax.serve --bundle bundles/digits [--bundle ...] [--bundles FOLDER] --port 8001

Plaintext is spoken on the loopback alone, unless --allow-plaintext; elsewhere give --tls-cert and --tls-key, and
--tls-client-ca to take only devices that have a certificate. With --repository-port, `python -m
bottlefit_jax.serve.load` loads bundles that are put into FOLDER later. One line says when it listens. SIGTERM or
SIGINT: it takes no more, finishes what it took, and exits with code 0; before that line, with 143 or 130. Exit code 2:
one line on standard error says what is wrong.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import UserError

GRACE = 60  # seconds that the last requests may take
LEVELS = ("debug", "info", "warning", "error")
PORTS = ("port", "repository_port", "metrics_port")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        from bottlefit_jax.serve import telemetry

        with telemetry.all_json():
            telemetry.logger.setLevel(args.log_level.upper())
            asyncio.run(serve(args))
    except UserError as error:
        return print_error(error)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together.
    """
    parser = Parser("bottlefit_jax.serve", __doc__)
    add = parser.add_argument
    add("--bundle", type=Path, action="append", default=[], help="a bundle, once or more often")
    add("--bundles", type=Path, action="append", default=[], help="a folder of bundles (later ones: serve.load)")
    add("--port", type=int, required=True, help="0: a free one")
    add("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    add("--backend", choices=["onnx", "jax"], default="onnx", help="what runs the tail (default: onnx)")
    add("--threads", type=int, default=_cores(), help="that run one batch (default: all cores)")
    add("--max-batch", type=int, default=8, help="images that are run at once (default: 8)")
    # what comes while the tail runs goes together anyway; 2 ms made 4 clients of a tail of 0.3 ms wait 2.7 ms, not 0.8
    add("--batch-delay-ms", type=float, default=0, help="that an idle tail waits for more requests (default: 0)")
    add("--queue", type=int, default=1024, help="requests that wait at most, whatever their deadlines (default: 1024)")
    add("--repository-port", type=int, help="on 127.0.0.1, loads and unloads models (serve.load); 0: a free one")
    add("--metrics-port", type=int, help="serves /metrics, for Prometheus, and /healthz; 0: a free one")
    add("--log-level", choices=LEVELS, default="info", help="of the log on standard error (default: info)")
    add("--log-calls", type=int, default=1, help="one line for so many calls that end alike; 0: none (default: 1)")
    add("--tls-cert", type=Path, help="PEM file of the server's certificate, and those up to its authority")
    add("--tls-key", type=Path, help="PEM file of its key")
    add("--tls-client-ca", type=Path, help="PEM file: only clients with a certificate of this authority")
    add("--token-file", type=Path, help="only clients that send the token in this file")
    add("--allow-plaintext", action="store_true", help="without TLS on other addresses than the loopback")
    args = parser.parse_args(argv)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    if not args.bundle and not args.bundles:
        raise UserError("--bundle is missing; an example: --bundle bundles/digits")
    for folder in args.bundles:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: --bundles takes a folder that holds bundles")
    limits = {"threads": (1, 1024), "max_batch": (1, 1024), "batch_delay_ms": (0, 10_000), "queue": (1, 1_000_000)}
    limits["log_calls"] = (0, 1_000_000)
    for name, (least, most) in {**limits, **dict.fromkeys(PORTS, (0, 65535))}.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} is {value:g}; it must be {least:,} to {most:,}")
    if (args.tls_cert is None) != (args.tls_key is None):
        raise UserError("--tls-cert and --tls-key go together")
    if args.tls_client_ca is not None and args.tls_cert is None:
        raise UserError("--tls-client-ca needs --tls-cert and --tls-key")


async def serve(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UserError: something of `args` cannot be used.
    """
    from bottlefit_jax.serve.assembly import Running
    from bottlefit_jax.serve.grpc_server import raise_file_limit
    from bottlefit_jax.serve.telemetry import log

    files = raise_file_limit()
    stop = asyncio.Event()
    running = await Running.start(args)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    with contextlib.suppress(BrokenPipeError):  # nobody reads the line
        print(running.line, flush=True)
    log("started", address=running.address, models=running.names, open_files=files)
    await stop.wait()
    log("stopping")
    await running.stop(GRACE)
    log("stopped")


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    command.run(main, extra="serve")
