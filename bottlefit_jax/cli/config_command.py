"""What the commands with a config have in common: --config=FILE --workdir=DIR, flags of their own, exit codes."""

import logging
import os
import re
import shlex
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from absl import flags
from absl import logging as absl_logging

from bottlefit_jax.cli.command import Parser, print_error, program
from bottlefit_jax.cli.config_file import config_list, override, read_config
from bottlefit_jax.errors import UserError, is_disk_full
from bottlefit_jax.paths import PathError, local_path
from bottlefit_jax.recipe import Config, expand_paths, model_options
from bottlefit_jax.training.network_meta import NetworkMeta

__all__ = ["Flags", "make_parser", "meet_weights", "parse", "run_command"]

EXAMPLE = "an example: --config=digits --workdir=runs/digits"
CONFIG_HELP = """
The configs that --config knows by name, each with the start of its text:

{configs}"""
KEYS = "bottlefit_jax/recipe.py and docs/reference/configuration.md have all keys"
Flags = Mapping[str, tuple[str, str, str]]  # a command's own: name -> (default, metavar, help); every value is a text


def run_command(
    module: str, argv: Sequence[str], act: Callable[[Config, Path, dict[str, str], str], int], *, usage: str, own: Flags
) -> int:
    """Run a command and return its exit code; an error is one line, and a signal leaves everything saved.

    Args:
        module: the one that `python -m` runs.
        argv: the command line without the program.
        act: called with the config, the workdir, the values of `own` and the command line as it was typed; returns the
            exit code.
        usage: the module's docstring, which --help prints.
        own: the command's own flags.
    """
    _quieten()
    try:
        config, workdir, values = parse(argv, parser=make_parser(module, usage=usage, own=own), own=own)
        from bottlefit_jax.training import checkpoint, loop, sharding  # JAX takes seconds: what is above needs none

        sharding.start_devices()
        sharding.use_compilation_cache()
        checkpoint.silence_echoes()
        weights = [config[key].weights for key in ("teacher", "student")]
        for folder in [folder for folder in weights if folder and Path(folder).is_dir()]:  # else `act` raises UserError
            typed = {argument.partition("=")[0].lstrip("-").removeprefix("no") for argument in argv}
            for note in meet_weights(config, checkpoint.load_meta(Path(folder)), folder, typed=typed):
                print(note, flush=True)
        try:
            return act(config, workdir, values, f"{program(module)} {shlex.join(argv)}")
        except loop.Stopped as stopped:
            print(f"stopped by {stopped}; the same command goes on from here")
            return 128 + stopped.signum
    except UserError as error:
        return print_error(error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        # Orbax leaves coroutines that it never awaits, and Python would say so when they are collected.
        warnings.simplefilter("ignore", RuntimeWarning)
        return print_error(f"no space left on the disk while writing {error.filename or 'the run'}")


def make_parser(module: str, *, usage: str, own: Flags) -> Parser:
    """Return a parser that knows the flags for --help; absl reads them, because it knows the config's.

    Args:
        module: the one that `python -m` runs.
        usage: the module's docstring.
        own: the command's own flags.
    """
    parser = Parser(module, usage)
    add = parser.group("what to run")
    add(
        "--config",
        required=True,
        metavar="CONFIG",
        help="the config: FILE.py or the name of one of ours, with its argument behind a colon where it takes one, as "
        "in imagenet:resnet152,12ch,kd,frozen",
    )
    add("--workdir", required=True, metavar="FOLDER", help="folder of the run; a run that was stopped goes on")
    add("--config.KEY", metavar="VALUE", help=f"changes a key of the config; {KEYS} (default: the config's)")
    if own:
        add = parser.group("the comparison")
        for name, (default, metavar, text) in own.items():
            add(f"--{name}", default=default, metavar=metavar, help=text)
    return parser


def parse(argv: Sequence[str], *, parser: Parser, own: Flags) -> tuple[Config, Path, dict[str, str]]:
    """Read a command line.

    Args:
        argv: the command line without the program.
        parser: prints --help.
        own: the command's own flags.

    Returns:
        The config, locked, with `~` expanded in its paths; the workdir; the values of `own`.

    Raises:
        UserError: an unknown flag or config key, a value of the wrong type, a config file that is missing or fails, a
            path that is not on this machine.
    """
    reference, arguments = _take_config(argv)
    if any(argument in ("--help", "-help", "-h") for argument in arguments):
        parser.print_help()
        print(CONFIG_HELP.format(configs=config_list()))
        raise SystemExit(0)
    if reference is None:
        raise UserError(f"--config is missing; {EXAMPLE}; --help lists the configs")
    config = read_config(reference)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    for name, (default, _, text) in own.items():
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


def meet_weights(config: Config, meta: NetworkMeta, folder: str, *, typed: Collection[str]) -> list[str]:
    """Change the network's options in a config to those of its weights, unless the command line sets them.

    Args:
        config: one that names weights; changed in place.
        meta: of the folder of the weights.
        folder: its path, for the notes.
        typed: the keys that the command line sets, such as `config.teacher.options.width`.

    Returns:
        Notes on what was changed or differs, a line each.
    """
    notes, options = [], meta.options
    for key, value in model_options(config).items():
        if options.get(key) != value and f"config.teacher.options.{key}" not in typed:
            config.teacher.options[key] = None
            theirs = repr(options[key]) if key in options else "the model's own"
            notes.append(f"config.teacher.options.{key}: {theirs} as in {folder}, not the config's {value!r}")
    size = meta.image_size
    if size and not config.dataset.image_size:
        config.dataset.image_size = size
        config.dataset.resize = config.dataset.resize or meta.resize
    elif size and size != config.dataset.image_size:
        notes.append(f"{folder} was trained with images of {size} px; this run has {config.dataset.image_size} px")
    return notes


def _take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the value of --config=FILE or --config FILE, and the other arguments."""
    reference, others = None, []
    items = iter(arguments)
    for argument in items:
        if argument in ("--config", "-config"):
            reference = next(items, "")
        elif match := re.fullmatch(r"--?config[= ](.*)", argument, re.DOTALL):
            reference = match[1]
        else:
            others.append(argument)
            continue
        if not reference or reference.startswith("-"):
            raise UserError(f"--config has no value; {EXAMPLE}; --help lists the configs")
    return reference, others


def _quieten() -> None:
    """Keep libraries from logging what they also raise; Orbax and asyncio log pages of it from their threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
