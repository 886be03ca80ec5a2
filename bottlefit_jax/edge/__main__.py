"""Classify images: the head runs here, the tail on a server.

    python -m bottlefit_jax.edge --bundle BUNDLE --server HOST:PORT IMAGE_OR_FOLDER ... [--json]
    python -m bottlefit_jax.edge --bundle BUNDLE --server HOST:PORT --camera 0
    python -m bottlefit_jax.edge --bundle BUNDLE --local IMAGE_OR_FOLDER ...

Exit codes:

    0    every image was classified
    1    an image could not be read, or had no valid answer within the deadline; a line on standard error names it
    2    a flag, a file, the bundle or the server is invalid; one line on standard error
    130  Ctrl-C, which is how a camera's run ends
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import os
import sys
from collections.abc import Sequence

from bottlefit_jax.cli import command


def make_parser() -> command.Parser:
    """Return the parser of the command line."""
    from bottlefit_jax.edge import classify

    return classify.make_parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would log errors that we print
    from bottlefit_jax.edge.classify import parse, run
    from bottlefit_jax.errors import BottleFitError

    try:
        return run(parse(sys.argv[1:] if argv is None else argv, __doc__))
    except BottleFitError as error:
        return command.print_error(error)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    command.run(main, extra="edge")
