"""Flags that several commands of the device have: what runs the head, and how the server is reached."""

from __future__ import annotations

import argparse
from pathlib import Path


def path(text: str) -> Path:
    """Return a path whose ~ is replaced by the home folder: shells do not replace it in --flag=~/path."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: the file's name begins with ~
        return Path(text)


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add --runtime, --providers and --threads."""
    from bottlefit_jax.edge.runtimes import AUTO, RUNTIMES  # which need NumPy

    parser.add_argument("--threads", type=int, default=1, help="that the head may use (default: %(default)s)")
    parser.add_argument(
        "--runtime",
        choices=[AUTO, *RUNTIMES],
        default=AUTO,
        help="what runs the head (default: auto, the first that is installed and that the bundle has a head for)",
    )
    parser.add_argument(
        "--providers",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAME,...",
        help="what ONNX Runtime computes with: some of tensorrt, cuda, cpu (default: the fastest that is installed)",
    )


def add_security(parser: argparse.ArgumentParser, condition: str = "") -> None:
    """Add the flags of TLS and --token-file; `condition` comes before their first help."""
    add = parser.add_argument
    add("--tls", action="store_true", help=f"{condition}encrypt; implied by the next three flags")
    add("--tls-ca", type=path, metavar="PEM", help="the authorities that may have signed the server's certificate")
    add("--tls-cert", type=path, metavar="PEM", help="this device's certificate")
    add("--tls-key", type=path, metavar="PEM", help="the key of that certificate")
    add("--token-file", type=path, metavar="FILE", help="a file with the bearer token to send")
