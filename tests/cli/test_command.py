"""What all commands do alike: a signal, a missing package, a version, one process at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bottlefit_jax import __version__, files, lock
from bottlefit_jax.cli import command
from bottlefit_jax.errors import UserError

ROOT = Path(__file__).parents[2]
# module -> flags that pass its first checks, and the extra that brings what it imports then
COMMANDS = {
    "bottlefit_jax.main": (["--config=configs/digits.py"], "train"),
    "bottlefit_jax.compare": (["--config=configs/digits.py"], "train"),
    "bottlefit_jax.convert": (["--model=resnet18", "--input=none.pth", "--output=none"], "train"),
    "bottlefit_jax.prepare": (["--name=a", "--data_dir=none"], "train"),
    "export.bundle": (["--workdir=tests", "--output=none"], "export"),
    "bottlefit_jax.serve": (["--bundle=none", "--port=0"], "serve"),
    "bottlefit_jax.serve.load": (["--server=localhost:1"], "serve"),
    "bottlefit_jax.edge": (["--bundle=none", "--server=localhost:1", "none.jpg"], "edge"),
    "bottlefit_jax.links.bench": (["--bundle=none", "--images=none", "--output=none"], "edge,serve"),
    "bottlefit_jax.links.jpeg_server": (["--bundle=none", "--port=0", "--tail=localhost:1"], "edge"),
}
# A command whose main does as the test says, so that a signal comes at a moment that is known.
SCRIPT = """
import os, sys, threading, time
from pathlib import Path
from bottlefit_jax import files, interrupt, lock
from bottlefit_jax.cli import command
def ready(): print("ready", flush=True)
def main():
    {main}
    return 0
command.run(main, extra="train")
"""


def start(main, *, cwd):
    lines = main.strip().replace("\n", "\n    ")
    argv = [sys.executable, "-c", SCRIPT.format(main=lines)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    return subprocess.Popen(
        argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


def interrupted(process, signum=signal.SIGINT, times=1):
    """Signals the whole group, as a terminal does, each time when it is ready; its exit code and both outputs."""
    for _ in range(times):
        assert process.stdout.readline() == "ready\n", process.communicate()
        os.killpg(process.pid, signum)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("module", COMMANDS)
def test_a_missing_package_is_one_line_that_names_the_extra(module):
    """Without the site's packages everything but the standard library is missing."""
    flags, extra = COMMANDS[module]
    done = subprocess.run([sys.executable, "-S", "-m", module, *flags], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert f"[{extra}]'" in done.stderr
    assert " is not installed for " in done.stderr


def test_a_clone_with_its_environment_names_it(tmp_path, monkeypatch):
    error = ModuleNotFoundError("No module named 'absl'", name="absl")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert command.missing(error, "train").endswith(f"{sys.executable}: pip install 'bottlefit-jax[train]'")
    (tmp_path / "Makefile").touch()
    assert "`make demo`" in command.missing(error, "train")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert f"use {tmp_path / '.venv/bin/python'}, or" in command.missing(error, "train")


def test_a_package_that_is_there_and_broken_is_not_called_missing():
    error = ImportError("libGL.so.1: cannot open shared object file", name="cv2")
    assert command.missing(error, "train") == "cannot import cv2: libGL.so.1: cannot open shared object file"


@pytest.mark.parametrize("module", [*COMMANDS, "export.tensorrt"])
def test_every_command_has_a_version(module):
    done = subprocess.run([sys.executable, "-S", "-m", module, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bottlefit-jax {__version__}\n", "")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_whatever_its_threads_do(tmp_path, signum):
    """A main thread in C code that no exception reaches, and a thread that would print one."""
    main = """
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
lock = threading.Lock(); lock.acquire()
print("not yet flushed", end=""); os.write(1, b"ready" + bytes([10]))
try: lock.acquire()
except BaseException: print("an exception", file=sys.stderr)
"""
    code, out, err = interrupted(start(main, cwd=tmp_path), signum)
    assert (code, out, err) == (128 + signum, "not yet flushed", f"stopped by {signum.name}\n")


def test_a_signal_leaves_no_part_of_an_output_and_no_lock(tmp_path):
    main = """
with files.atomic_directory(Path("bundle")) as folder, files.atomic_file(Path("file")) as file:
    (folder / "part").write_text("half"); file.write_text("half"); ready(); time.sleep(600)
"""
    code, _, err = interrupted(start(main, cwd=tmp_path))
    assert (code, err) == (130, "stopped by SIGINT\n")
    assert list(tmp_path.iterdir()) == []


def test_the_line_reaches_the_terminal_where_a_library_has_redirected_standard_error(tmp_path):
    main = """
import os
os.dup2(os.open(os.devnull, os.O_WRONLY), 2); ready(); time.sleep(600)
"""
    assert interrupted(start(main, cwd=tmp_path))[2] == "stopped by SIGINT\n"


def test_who_is_asked_answers_and_a_second_signal_does_not_wait(tmp_path):
    main = """
asked = []
with interrupt.asked(asked.append):
    ready()
    while not asked: time.sleep(0.01)
    {more}
print(f"saved after {{asked[0]}}")
return 130
"""
    code, out, err = interrupted(start(main.format(more="pass"), cwd=tmp_path))
    assert (code, out, err) == (130, "saved after 2\n", "")
    code, out, err = interrupted(start(main.format(more="ready(); time.sleep(600)"), cwd=tmp_path), times=2)
    assert (code, out, err) == (130, "", "stopped by SIGINT\n")


def test_one_process_holds_a_lock_and_the_other_says_who(tmp_path):
    main = """
with lock.hold(Path("run/.lock"), "run", hint=", or give another --workdir"):
    ready(); time.sleep(600)
"""
    first, path = start(main, cwd=tmp_path), tmp_path / "run" / ".lock"
    assert first.stdout.readline() == "ready\n"
    second = start(main, cwd=tmp_path)
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    where = f"process {first.pid} on {os.uname().nodename} since "
    assert err.startswith(f"error: run is in use by {where}{time.strftime('%Y-')}"), err
    assert err.endswith(": wait until that has ended, or give another --workdir\n")
    first.kill()  # the system frees it, and what is left of it says nothing
    first.communicate()
    assert path.exists()
    with (
        lock.hold(path, "run"),
        pytest.raises(lock.InUseError, match=f"process {os.getpid()} "),
        lock.hold(path, "run"),
    ):
        pass
    assert not path.exists()


def test_a_file_system_without_locks_is_said_and_the_command_goes_on(tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        raise OSError(lock.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.hold(tmp_path / ".lock", "run"):
        pass
    assert "no locks on the file system" in capsys.readouterr().err


def test_what_another_process_has_written_meanwhile_is_not_replaced(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(UserError, match="has just been written by another process"):  # noqa: SIM117
        with files.atomic_directory(tmp_path / "bundle", overwrite=False):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_platform_that_is_not_there_is_one_line():
    """A GPU asked for where there is none."""
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


def test_a_notebooks_plotting_backend_does_not_reach_a_command(tmp_path):
    """Colab sets it for the processes that it starts, and it can be imported in the notebook alone."""
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
