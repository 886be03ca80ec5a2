"""What a server says, as text that is safe to print."""

from typing import Any


def one_line(text: str, limit: int = 300) -> str:
    """Return a server's words as one line of at most `limit` characters, without control characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[:limit] + "…"


def status_line(error: Any, *, limit: int = 300) -> str:
    """Return the status and at most `limit` characters of the details of a grpc.RpcError as one line."""
    return f"{error.code().name}: {one_line(error.details() or '', limit) or 'no reason given'}"
