"""The console command `bottlefit`: one name for all commands of this package.

    bottlefit COMMAND ARGUMENTS...        the same as python -m MODULE ARGUMENTS...

`python -m bottlefit_jax` is the same command. A row of `COMMANDS` is all that a command needs here.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from bottlefit_jax import interrupt
from bottlefit_jax.cli import silence


class Command(NamedTuple):
    """A row of the table.

    Attributes:
        module: the module whose `main(argv)` runs the command.
        extra: the extra of this package that installs what the module imports.
        summary: one line for `bottlefit --help`.
        note: the end of the line that SIGINT or SIGTERM prints, as the module itself gives it to `interrupt.watch`.
    """

    module: str
    extra: str
    summary: str
    note: str = ""


RESUMABLE = "; the same command goes on from here"
# In the order of the work: data, training, deployment, measurement.
COMMANDS = {
    "prepare": Command("bottlefit_jax.prepare", "train", "store a dataset as ArrayRecord, for large datasets"),
    "convert": Command("bottlefit_jax.convert.__main__", "train", "read weights of PyTorch or Keras, or write ours"),
    "train": Command("bottlefit_jax.main", "train", "train the teacher and the student of a config", RESUMABLE),
    "export": Command("export.bundle", "export", "turn a trained run into a bundle for device and server"),
    "serve": Command("bottlefit_jax.serve.__main__", "serve", "on the server: run the tails of bundles"),
    "infer": Command("bottlefit_jax.edge.__main__", "edge", "on the device: classify images or a camera's frames"),
    "check": Command("bottlefit_jax.edge.check", "edge", "on the device: does it compute what the export computed?"),
    "compare": Command("bottlefit_jax.compare.__main__", "train", "compare BottleFit with other methods", RESUMABLE),
    "bench": Command("bottlefit_jax.links.bench", "edge,serve", "measure a bundle over links of several rates"),
}
HELP = """usage: bottlefit COMMAND ARGUMENTS...

Split computing with learned bottlenecks: train a classifier whose first layers run on a small device and whose other
layers run on a server. The commands, in the order of the work:

{commands}

`bottlefit COMMAND --help` lists a command's arguments, `bottlefit --version` prints the version. A command needs the
packages of the extra in the last column: pip install 'bottlefit-jax[EXTRA]'. `prepare` needs [prepare] for a dataset
of TFDS's catalogue, and `convert` needs [convert] for PyTorch's files.

An example; the training takes about a minute:

  bottlefit train --config=digits --workdir=runs/digits
  bottlefit export --workdir runs/digits --output bundles/digits
  bottlefit serve --bundle bundles/digits --port 8001
  bottlefit infer --bundle bundles/digits --server localhost:8001 IMAGE_OR_FOLDER

To train on your own images: --config=own_classes. `bottlefit train --help` lists the configs."""


def run() -> NoReturn:
    """Run the command line of this process, and end the process with its exit code."""
    row = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    interrupt.watch(row.note if row else "")
    silence.allow()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    from bottlefit_jax import __version__
    from bottlefit_jax.cli import command

    name, arguments = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("--help", "-h", "help"):
        print(help_text())
        return 0
    if name == "--version":
        print(f"bottlefit-jax {__version__}")
        return 0
    if name not in COMMANDS:
        return command.print_error(f"unknown command {name!r}; {_suggestion(name)}bottlefit --help lists the commands")
    row = COMMANDS[name]
    with command.called_as(f"bottlefit {name}"):
        return command.outcome(
            lambda: importlib.import_module(row.module).main(arguments), arguments=arguments, extra=row.extra
        )


def help_text() -> str:
    """Return what `bottlefit --help` prints."""
    width = max(len(row.summary) for row in COMMANDS.values())
    lines = [f"  {name:<8}  {row.summary:<{width}}  [{row.extra}]" for name, row in COMMANDS.items()]
    return HELP.format(commands="\n".join(lines))


def _suggestion(name: str) -> str:
    """Return a question that names the command spelled most like `name`, or whose module is; or ''."""
    import difflib

    rows = reversed(COMMANDS.items())  # of the commands of one room the first counts
    modules = {part: command for command, row in rows for part in row.module.split(".")[1:2]}
    spellings = modules | {command: command for command in COMMANDS}
    matches = difflib.get_close_matches(name.lower(), spellings, n=1)
    return f"did you mean {spellings[matches[0]]!r}? " if matches else ""


if __name__ == "__main__":
    run()
