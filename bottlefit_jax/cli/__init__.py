"""What all commands have in common: flags, configs, errors on one line, exit codes. Nothing here knows a network."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.cli.command import Parser, called_as, print_error, program, run
    from bottlefit_jax.cli.config_command import run_command
    from bottlefit_jax.cli.config_file import read_config

__all__ = ["Parser", "called_as", "print_error", "program", "read_config", "run", "run_command"]

__getattr__ = exports(
    __name__,
    {
        "command": ("Parser", "called_as", "print_error", "program", "run"),
        "config_command": ("run_command",),
        "config_file": ("read_config",),
    },
)
