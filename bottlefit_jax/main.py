"""Trains what a config asks for, goes on where the workdir already holds it, and writes a report.

    python -m bottlefit_jax.main --config=configs/digits.py --workdir=runs/digits [--config.a.b=value]

Exit codes: 0 done; 2 something given cannot be used (one line on standard error); 143 or 130 stopped by SIGTERM or
SIGINT, everything saved: the same command goes on from there.
"""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from bottlefit_jax.errors import UserError, is_disk_full
from bottlefit_jax.recipe import Config


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (its first item is the program) and returns the exit code."""
    _quieten()
    try:
        config, workdir = parse(argv)
        from bottlefit_jax.training import checkpoint, loop, sharding  # JAX takes seconds: what is above needs none

        sharding.start_devices()
        sharding.use_compilation_cache()
        checkpoint.silence_echoes()
        from bottlefit_jax import experiment

        try:
            report = experiment.run(
                config, workdir, command=shlex.join(["python", "-m", "bottlefit_jax.main", *argv[1:]])
            )
        except loop.Stopped as stopped:
            print(f"stopped by {stopped}; the same command goes on from here")
            return 128 + stopped.signum
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_disk_full(error):
            raise
        print(f"error: no space left on the disk while writing {error.filename or 'the run'}", file=sys.stderr)
        return 2
    if report:
        summarise(report, workdir)
    return 0


def parse(argv: Sequence[str]) -> tuple[Config, Path]:
    """Reads the command line.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a config file that is not there.
    """
    values = flags.FlagValues()
    config_flag = config_flags.DEFINE_config_file(
        "config", None, "experiment, configs/NAME.py[:ARGUMENT]", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_boolean("help", False, "show this", short_name="h", flag_values=values)
    try:
        for argument in argv[1:]:
            name, _, value = argument.partition("=")
            if name in ("--config", "-config") and not Path(value.split(":")[0]).is_file():
                raise UserError(f"no config file {value.split(':')[0]!r}; configs/digits.py is one")
        rest = values(list(argv))
        if values["help"].value:
            print(f"{__doc__}\nThe config's keys and their defaults: bottlefit_jax/recipe.py")
            raise SystemExit(0)
        if len(rest) > 1:
            raise UserError(
                f"unexpected argument {rest[1]!r}: everything is --config=…, --workdir=… or --config.KEY=VALUE"
            )
        for name in ("config", "workdir"):
            if values[name].value is None:
                raise UserError(f"--{name} is missing; an example: --config=configs/digits.py --workdir=runs/digits")
        config = config_flag.value
        config.to_dict()  # where the file could not be read, only its use says so
    except UserError:
        raise
    except (AttributeError, KeyError) as error:
        hint = str(error).replace("\\", "").strip("\"'").replace("\n", " ").strip()
        raise UserError(f"unknown config key: {hint}") from error
    except (flags.Error, OSError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(lines[-1].removeprefix("bottlefit_jax.errors.UserError: ")) from error
    return config, Path(str(values["workdir"].value))


def summarise(report: dict, workdir: Path) -> None:
    """Two lines at the end of a run: what came out, and where it stands."""
    found = [f"{name} {report[name]['top1']:.2f} %" for name in ("teacher", "student") if report[name] is not None]
    line, traffic = f"{', '.join(found)} top-1", report["bytes_per_image"]
    if report["student"] is not None:
        line += (
            f"; {traffic['latent_payload']:,} bytes a picture instead of {traffic['jpeg']:,.0f} as JPEG "
            f"({traffic['saving_percent']:.1f} % less)"
        )
    print(line)
    print(f"report: {workdir / 'report.md'}")


def _quieten() -> None:
    """Libraries raise what they would log: Orbax and asyncio print pages of it from their threads as well."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
