"""Flags that several commands of the device have: what runs the head, and how the server is reached."""

from __future__ import annotations

from pathlib import Path

from bottlefit_jax.cli.command import Parser
from bottlefit_jax.cli.flags import add_providers

DEVICE, SERVER, SECURITY, OUTPUT = "the device", "the server", "security", "output"  # titles of groups of flags


def path(text: str) -> Path:
    """Return a path whose ~ is replaced by the home folder: shells do not replace it in --flag=~/path."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: the file's name begins with ~
        return Path(text)


def add_runtime(parser: Parser) -> None:
    """Add --runtime, --providers and --threads."""
    from bottlefit_jax.edge.runtimes import AUTO, RUNTIMES  # which need NumPy

    add = parser.group(DEVICE)
    add(
        "--runtime",
        choices=[AUTO, *RUNTIMES],
        default=AUTO,
        help="what runs the head; auto: the first that is installed and that the bundle has a head for",
    )
    add_providers(add)
    add("--threads", type=int, default=1, metavar="N", help="threads that the head may use")


def add_security(parser: Parser, condition: str = "") -> None:
    """Add the flags of TLS and --token-file; `condition` comes before the help of each."""
    add = parser.group(SECURITY)
    add("--tls", action="store_true", help=f"{condition}encrypt; each of the next three flags implies it")
    add(
        "--tls-ca",
        type=path,
        metavar="PEM",
        help=f"{condition}the authorities that may have signed the server's certificate (default: the public ones)",
    )
    add("--tls-cert", type=path, metavar="PEM", help=f"{condition}this device's certificate (default: none)")
    add("--tls-key", type=path, metavar="PEM", help=f"{condition}the key of that certificate (default: none)")
    add(
        "--token-file",
        type=path,
        metavar="FILE",
        help=f"{condition}a file with the bearer token to send (default: no token)",
    )
