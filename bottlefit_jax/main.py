"""Trains what a config asks for, resuming where the workdir already holds it, and writes a report.

    python -m bottlefit_jax.main --config=configs/digits.py --workdir=runs/digits [--config.a.b=value]

Exit codes: 0 done; 2 an invalid value (one line on standard error); 143 or 130 stopped by SIGTERM or SIGINT, with
everything saved: the same command resumes from there.
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

    return config_command.make_parser("bottlefit_jax.main", usage=str(__doc__), own={})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    from bottlefit_jax.cli.config_command import run_command

    arguments = sys.argv[1:] if argv is None else argv
    return run_command("bottlefit_jax.main", arguments, _train, usage=str(__doc__), own={})


def _train(config: "Config", workdir: Path, values: dict[str, str], typed: str) -> int:
    del values
    import bottlefit_jax.compare.designs  # noqa: F401  a config may train a design of the comparison alone
    from bottlefit_jax.experiment.run import run_experiment
    from bottlefit_jax.training.loop import StopSignal

    if report := run_experiment(config, workdir, command=typed, stop=StopSignal()):
        summarise(report, workdir)
    return 0


def summarise(report: dict, workdir: Path) -> None:
    """Print two lines at the end of a run: its accuracies and bytes, and where the report is."""
    if report["evaluation"]["measure"] == "agreement":
        line = f"the student gives its teacher's answer for {report['student']['agreement']:.2f} % of the images"
    else:
        names = [name for name in ("teacher", "student") if report[name] is not None]
        line = ", ".join(f"{name} {report[name]['top1']:.2f} %" for name in names) + " top-1"
    traffic = report["bytes_per_image"]
    if report["student"] is not None:
        line += (
            f"; {traffic['latent_payload']:,.0f} bytes an image instead of {traffic['jpeg']:,.0f} as JPEG at quality "
            f"95 ({traffic['saving_percent']:.1f} % less)"
        )
    print(line)
    print(f"report: {workdir / 'report.md'}")


if __name__ == "__main__":
    command.run(main, extra="train")
