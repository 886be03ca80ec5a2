"""What the commands that take a config do alike: --config=FILE --workdir=DIR, flags of their own, exit codes."""

import logging
import os
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging

from bottlefit_jax.cli.command import print_error
from bottlefit_jax.cli.config_file import override, read_config
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import is_disk_full
from bottlefit_jax.paths import PathError, local_path
from bottlefit_jax.recipe import Config, expand_paths, model_options

EXAMPLE = "an example: --config=configs/digits.py --workdir=runs/digits"

Flags = Mapping[str, tuple[str, str]]  # a command's own: name -> (default, help), all of them texts


def run_command(
    module: str, argv: Sequence[str], act: Callable[[Config, Path, dict[str, str], str], int], *, usage: str, own: Flags
) -> int:
    """Run a command and return its exit code; a mistake is one line, and a signal leaves everything saved.

    Args:
        module: of the command, for the report.
        argv: its first item is the program.
        act: called with the config, the workdir, the values of `own` and what the person typed; gives the exit code.
        usage: what --help prints.
        own: the command's own flags.
    """
    _quieten()
    try:
        config, workdir, values = parse(argv, usage=usage, own=own)
        from bottlefit_jax.training import checkpoint, loop, sharding  # JAX takes seconds: what is above needs none

        sharding.start_devices()
        sharding.use_compilation_cache()
        checkpoint.silence_echoes()
        given = [config[key].weights for key in ("teacher", "student")]
        for folder in [folder for folder in given if folder and Path(folder).is_dir()]:  # `act` says what is missing
            typed = {argument.partition("=")[0].lstrip("-").removeprefix("no") for argument in argv[1:]}
            for note in meet_weights(config, checkpoint.load_meta(Path(folder)), folder, typed=typed):
                print(note, flush=True)
        try:
            return act(config, workdir, values, shlex.join(["python", "-m", module, *argv[1:]]))
        except loop.Stopped as stopped:
            print(f"stopped by {stopped}; the same command goes on from here")
            return 128 + stopped.signum
    except UserError as error:
        return print_error(error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        return print_error(f"no space left on the disk while writing {error.filename or 'the run'}")


def parse(argv: Sequence[str], *, usage: str, own: Flags) -> tuple[Config, Path, dict[str, str]]:
    """Read a command line.

    Args:
        argv: its first item is the program.
        usage: what --help prints.
        own: the command's own flags.

    Returns:
        The config, locked, its paths written out; the workdir; the values of `own`.

    Raises:
        UserError: an unknown flag or config key, a value of the wrong type, a config file that is not there or fails, a
            path that is not of this machine.
    """
    given, arguments = _take_config(argv[1:])
    if any(argument in ("--help", "-help", "-h") for argument in arguments):
        lines = [f"  --{name}={default}: {text}" for name, (default, text) in own.items()]
        print("\n".join([usage, *lines, "The config's keys and their defaults: bottlefit_jax/recipe.py"]))
        raise SystemExit(0)
    if given is None:
        raise UserError(f"--config is missing; {EXAMPLE}")
    config = read_config(given)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    for name, (default, text) in own.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    rest = override(config, "config", arguments, values)
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}: everything is --config=…, --workdir=… or --config.KEY=VALUE")
    if values["workdir"].value is None:
        raise UserError(f"--workdir is missing; {EXAMPLE}")
    try:
        workdir = local_path(str(values["workdir"].value))
    except PathError as error:
        raise UserError(f"--workdir: {error}") from None
    expand_paths(config)
    return config, workdir, {name: str(values[name].value) for name in own}


def meet_weights(config: Config, meta: dict[str, Any], folder: str, *, typed: Collection[str]) -> list[str]:
    """Change what a config's file says of the network to what its weights are; what the user typed stays.

    Args:
        config: with weights.
        meta: what the folder of the weights says of them.
        folder: its name, for the notes.
        typed: what the command line sets, such as `config.teacher.options.width`.

    Returns:
        Notes, a line each.
    """
    notes, options = [], meta.get("options") or {}
    for key, value in model_options(config).items():
        if options.get(key) != value and f"config.teacher.options.{key}" not in typed:
            config.teacher.options[key] = None
            theirs = repr(options[key]) if key in options else "the model's own"
            notes.append(f"config.teacher.options.{key}: {theirs} as in {folder}, not the config's {value!r}")
    size = meta.get("image_size")
    if size and not config.dataset.image_size:
        config.dataset.image_size = size
        config.dataset.resize = config.dataset.resize or meta.get("resize", 0)
    elif size and size != config.dataset.image_size:
        notes.append(f"{folder} was trained with images of {size} px; this run has {config.dataset.image_size} px")
    return notes


def _take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of --config=FILE or --config FILE, and the other arguments."""
    given, left = None, []
    items = iter(arguments)
    for argument in items:
        if argument in ("--config", "-config"):
            given = next(items, "")
        elif match := re.fullmatch(r"--?config[= ](.*)", argument, re.DOTALL):
            given = match[1]
        else:
            left.append(argument)
            continue
        if not given or given.startswith("-"):
            raise UserError(f"--config has no file; {EXAMPLE}")
    return given, left


def _quieten() -> None:
    """Libraries raise what they would log: Orbax and asyncio print pages of it from their threads as well."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
