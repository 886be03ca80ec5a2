"""Compare what BottleFit saves with what else a user could do, on the images and with the teacher of a config.

    python -m bottlefit_jax.compare --config=configs/imagenette.py --workdir=runs/imagenette

This trains every method that has something to train, three seeds each, with the same teacher, images and number of
epochs, and writes compare.md, compare.json and two plots into the workdir. After a stop the same command goes on.

Exit codes: 0 done; 1 done, but a method failed, and its row says why; 2 an argument or the data are invalid (one line
on standard error); 143 or 130 stopped by SIGTERM or SIGINT, everything saved.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch("; the same command goes on from here")

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bottlefit_jax.cli import command

if TYPE_CHECKING:
    from bottlefit_jax.recipe import Config


def make_parser() -> command.Parser:
    """Return the parser of the command line."""
    from bottlefit_jax.cli import config_command
    from bottlefit_jax.compare.items import FLAGS

    return config_command.make_parser("bottlefit_jax.compare", usage=str(__doc__), own=FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    from bottlefit_jax.cli.config_command import run_command
    from bottlefit_jax.compare.items import FLAGS

    arguments = sys.argv[1:] if argv is None else argv
    return run_command("bottlefit_jax.compare", arguments, _compare, usage=str(__doc__), own=FLAGS)


def _compare(config: "Config", workdir: Path, values: dict[str, str], typed: str) -> int:
    from bottlefit_jax.compare.items import Options

    options = Options.parse(values)
    from bottlefit_jax.compare.run import run_comparison

    comparison = run_comparison(config, workdir, options, command=typed)
    failed = [row for row in comparison["rows"] if row["error"]]
    print(f"report: {workdir / 'compare.md'}")
    if failed:
        print(
            f"{len(failed)} of {len(comparison['rows'])} rows failed, first {failed[0]['title']}: {failed[0]['error']}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    command.run(main, extra="train")
