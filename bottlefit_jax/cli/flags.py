"""Flags that commands of different rooms have."""

from bottlefit_jax.cli.command import AddFlag
from bottlefit_jax.onnx_session import PROVIDERS


def add_providers(add: AddFlag) -> None:
    """Add --providers by `Parser.group`'s function; `onnx_session.check_providers` checks its value."""
    names = ", ".join(PROVIDERS)
    add(
        "--providers",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAME,...",
        help=f"what ONNX Runtime computes with: some of {names} (default: the fastest that is installed)",
    )
