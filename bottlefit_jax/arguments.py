"""What the commands that take a config do alike: --config=FILE --workdir=DIR, flags of their own, exit codes."""

import logging
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from bottlefit_jax.command import tell
from bottlefit_jax.errors import UserError, is_disk_full
from bottlefit_jax.recipe import Config, meet_weights

Flags = Mapping[str, tuple[str, str]]  # a command's own: name -> (default, help), all of them texts


def carry_out(
    module: str, argv: Sequence[str], act: Callable[[Config, Path, dict[str, str], str], int], *, usage: str, own: Flags
) -> int:
    """Runs a command and returns its exit code; a mistake is one line, and a signal leaves everything saved.

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
        for folder in [config[key].weights for key in ("teacher", "student") if config[key].weights]:
            typed = {argument.partition("=")[0].lstrip("-") for argument in argv[1:]}
            for note in meet_weights(config, checkpoint.load_meta(Path(folder)), folder, typed=typed):
                print(note, flush=True)
        try:
            return act(config, workdir, values, shlex.join(["python", "-m", module, *argv[1:]]))
        except loop.Stopped as stopped:
            print(f"stopped by {stopped}; the same command goes on from here")
            return 128 + stopped.signum
    except UserError as error:
        return tell(error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        return tell(f"no space left on the disk while writing {error.filename or 'the run'}")


def parse(argv: Sequence[str], *, usage: str, own: Flags) -> tuple[Config, Path, dict[str, str]]:
    """Reads a command line.

    Args:
      argv: its first item is the program.
      usage: what --help prints.
      own: the command's own flags.

    Returns:
      The config, locked; the workdir; the values of `own`.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a config file that is not there.
    """
    values = flags.FlagValues()
    config_flag = config_flags.DEFINE_config_file(
        "config", None, "experiment, configs/NAME.py[:ARGUMENT]", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_boolean("help", False, "show this", short_name="h", flag_values=values)
    for name, (default, text) in own.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    try:
        for argument in argv[1:]:
            name, _, value = argument.partition("=")
            if name in ("--config", "-config") and not Path(value.split(":")[0]).is_file():
                raise UserError(f"no config file {value.split(':')[0]!r}; configs/digits.py is one")
        rest = values(list(argv))
        if values["help"].value:
            told = [f"  --{name}={default}: {text}" for name, (default, text) in own.items()]
            print("\n".join([usage, *told, "The config's keys and their defaults: bottlefit_jax/recipe.py"]))
            raise SystemExit(0)
        if len(rest) > 1:
            raise UserError(
                f"unexpected argument {rest[1]!r}: everything is --config=…, --workdir=… or --config.KEY=VALUE"
            )
        for name in ("config", "workdir"):
            if values[name].value is None:
                raise UserError(f"--{name} is missing; an example: --config=configs/digits.py --workdir=runs/digits")
        config: Any = config_flag.value
        config.to_dict()  # where the file could not be read, only its use says so
    except UserError:
        raise
    except (AttributeError, KeyError) as error:
        hint = str(error).replace("\\", "").strip("\"'").replace("\n", " ").strip()
        raise UserError(f"unknown config key: {hint}") from error
    except (flags.Error, OSError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(lines[-1].removeprefix("bottlefit_jax.errors.UserError: ")) from error
    return config, Path(str(values["workdir"].value)), {name: str(values[name].value) for name in own}


def _quieten() -> None:
    """Libraries raise what they would log: Orbax and asyncio print pages of it from their threads as well."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
