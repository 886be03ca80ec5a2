"""The bearer token of a request: the file that holds it, and the hosts to which it may travel unencrypted.

Device and server read it with the same rules. Standard library only.
"""

import ipaddress
from pathlib import Path

from bottlefit_jax.errors import UserError

__all__ = ["MAX_TOKEN", "is_loopback", "read_token"]

MAX_TOKEN = 4096  # characters; gRPC limits all metadata of a request to 8 KiB


def read_token(path: Path) -> str:
    """Return the token in a file, without the white space around it.

    Args:
        path: the value of --token-file.

    Raises:
        UserError: the file cannot be read, or does not hold one word that a header can carry.
    """
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise UserError(f"--token-file {path} cannot be read: {error.strerror}") from error
    if not token or len(token) > MAX_TOKEN or not all(33 <= byte <= 126 for byte in token):
        raise UserError(f"--token-file {path} must hold one word of 1 to {MAX_TOKEN:,} visible ASCII characters")
    return token.decode()


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: `localhost` or a loopback address, with or without brackets."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
