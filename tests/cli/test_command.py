"""What all commands have in common: a missing package or device is one line, and each has a version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax import __version__
from bottlefit_jax.cli import command
from bottlefit_jax.errors import ParityError, ProtocolError, Unavailable, UserError

ROOT = Path(__file__).parents[2]
# module -> flags that pass its first checks, and the extra that installs what it imports after them
COMMANDS = {
    "bottlefit_jax.main": (["--config=configs/digits.py"], "train"),
    "bottlefit_jax.compare": (["--config=configs/digits.py"], "train"),
    "bottlefit_jax.convert": (["--model=resnet18", "--input=none.pth", "--output=none"], "train"),
    "bottlefit_jax.prepare": (["--name=a", "--data_dir=none"], "train"),
    "export.bundle": (["--workdir=tests", "--output=none"], "export"),
    "bottlefit_jax.serve": (["--bundle=none", "--port=0"], "serve"),
    "bottlefit_jax.serve.load": (["--server=localhost:1"], "serve"),
    "bottlefit_jax.edge": (["--bundle=none", "--server=localhost:1", "none.jpg"], "edge"),
    "bottlefit_jax.edge.check": (["--bundle=none"], "edge"),
    "bottlefit_jax.links.bench": (["--bundle=none", "--images=none", "--output=none"], "edge,serve"),
    "bottlefit_jax.links.jpeg_server": (["--bundle=none", "--port=0", "--tail=localhost:1"], "edge"),
}


@pytest.mark.parametrize("module", COMMANDS)
def test_a_missing_package_is_one_line_that_names_the_extra(module):
    """Without the installed packages everything but the standard library is missing."""
    flags, extra = COMMANDS[module]
    done = subprocess.run([sys.executable, "-S", "-m", module, *flags], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert f"[{extra}]'" in done.stderr
    assert " is not installed for " in done.stderr


def test_the_line_names_the_environment_of_a_clone(tmp_path, monkeypatch):
    error = ModuleNotFoundError("No module named 'absl'", name="absl")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert command.missing(error, "train").endswith(f"{sys.executable}: pip install 'bottlefit-jax[train]'")
    (tmp_path / "Makefile").touch()
    assert "`make demo`" in command.missing(error, "train")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert f"use {tmp_path / '.venv/bin/python'}, or" in command.missing(error, "train")


def test_a_broken_package_is_not_called_missing():
    error = ImportError("libGL.so.1: cannot open shared object file", name="cv2")
    assert command.missing(error, "train") == "cannot import cv2: libGL.so.1: cannot open shared object file"


@pytest.mark.parametrize("name", ["bottlefit_jax", "bottlefit_jax.edge.client", "export.head"])
def test_a_module_of_ours_that_cannot_be_imported_is_a_bug_and_not_a_missing_package(name, monkeypatch):
    def main():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setenv("MPLBACKEND", "agg")
    with pytest.raises(ModuleNotFoundError):
        command.outcome(main, arguments=[], extra="edge")


@pytest.mark.parametrize(("kind", "code"), [(UserError, 2), (Unavailable, 2), (ProtocolError, 2), (ParityError, 1)])
def test_an_error_of_ours_is_one_line_and_its_exit_code(kind, code, monkeypatch, capsys):
    def main():
        raise kind("--port is 'x';\n it must be a number")

    monkeypatch.setenv("MPLBACKEND", "agg")
    assert command.outcome(main, arguments=[], extra="serve") == code
    assert capsys.readouterr().err == "error: --port is 'x'; it must be a number\n"


def test_a_usage_line_names_what_was_typed():
    description = "Serves.\n\n    python -m bottlefit_jax.serve --port 1\n    python -m bottlefit_jax.serve.load digits"
    parser = command.Parser("bottlefit_jax.serve", description)
    assert (parser.prog, parser.description) == ("python -m bottlefit_jax.serve", description)
    with command.called_as("bottlefit serve"):
        parser = command.Parser("bottlefit_jax.serve", description)
    assert parser.prog == "bottlefit serve"
    assert parser.description == (
        "Serves.\n\n    bottlefit serve --port 1\n    python -m bottlefit_jax.serve.load digits"
    )


@pytest.mark.parametrize("module", [*COMMANDS, "export.tensorrt"])
def test_every_command_has_a_version(module):
    done = subprocess.run([sys.executable, "-S", "-m", module, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bottlefit-jax {__version__}\n", "")


def test_a_missing_device_is_one_line():
    """A GPU is asked for on a machine that has none."""
    script = "import jax; from bottlefit_jax.cli import command; command.run(lambda: jax.devices(), extra='train')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"JAX_PLATFORMS": "cuda", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: JAX_PLATFORMS is 'cuda', and JAX finds no such device")
    assert "Traceback" not in done.stderr


def test_a_command_does_not_use_the_plotting_backend_of_a_notebook(tmp_path):
    """Colab sets it for the processes that it starts, but only the notebook can import it."""
    script = """
from bottlefit_jax.cli import command
def main():
    from bottlefit_jax.evaluation import plots
    plots.training_curves("curves.png", [{"stage": "teacher", "epoch": 1, "train_loss": 1.0}])
    return 0
command.run(main, extra="train")
"""
    environment = os.environ | {"MPLBACKEND": "module://no_such_package.backend", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "curves.png").stat().st_size > 1000
