"""Classifies images: the head runs here, the tail on a server.

    python -m bottlefit_jax.edge --bundle BUNDLE --server HOST:PORT IMAGE_OR_FOLDER ... [--json]
    python -m bottlefit_jax.edge --bundle BUNDLE --server HOST:PORT --camera 0
    python -m bottlefit_jax.edge --bundle BUNDLE --local IMAGE_OR_FOLDER ...

Exit code 1: an image could not be read, or got no usable answer within the deadline, as a line on standard error
says; the others were classified. Exit code 2: one line on standard error says what cannot be used. Exit code 130:
Ctrl-C, the way to end a camera's run.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import os
import sys
from collections.abc import Sequence

from bottlefit_jax.cli import command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would log what we say
    from bottlefit_jax.cli.command import print_error
    from bottlefit_jax.edge.classify import parse, run
    from bottlefit_jax.errors import BottleFitError

    try:
        return run(parse(sys.argv[1:] if argv is None else argv, __doc__))
    except BottleFitError as error:
        return print_error(error)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    command.run(main, extra="edge")
