"""A signal ends a command with one line and leaves nothing half written, whatever the command's threads do."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bottlefit_jax import interrupt

ROOT = Path(__file__).parents[1]
# A command with a given body, which prints "ready" so that the signal comes at a known moment.
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
    """Start a command as a process group of its own.

    Args:
        main: the body of its main function.
        cwd: its working directory.
    """
    lines = main.strip().replace("\n", "\n    ")
    argv = [sys.executable, "-c", SCRIPT.format(main=lines)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    return subprocess.Popen(
        argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


def interrupted(process, signum=signal.SIGINT, times=1):
    """Signal the whole group, as a terminal does, each time the process is ready.

    Returns:
        The exit code, what it printed after "ready", and standard error.
    """
    for _ in range(times):
        assert process.stdout.readline() == "ready\n", process.communicate()
        os.killpg(process.pid, signum)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_signal_that_was_asked_for_does_not_end_the_process_when_its_thread_hears_of_it_late(tmp_path):
    """The handler runs in the main thread, which may go on before the watching thread has received the same signal."""
    main = """
for _ in range(100):
    got = []
    with interrupt.asked(got.append):
        os.kill(os.getpid(), 2)
        while not got:
            pass
time.sleep(0.1)
print("alive")
"""
    out, err = start(main, cwd=tmp_path).communicate(timeout=60)
    assert (out, err) == ("alive\n", "")


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


def test_a_signal_removes_half_written_outputs_and_locks(tmp_path):
    main = """
with files.atomic_directory(Path("bundle")) as folder, files.atomic_file(Path("file")) as file:
    (folder / "part").write_text("half"); file.write_text("half"); ready(); time.sleep(600)
"""
    code, _, err = interrupted(start(main, cwd=tmp_path))
    assert (code, err) == (130, "stopped by SIGINT\n")
    assert list(tmp_path.iterdir()) == []


def test_the_line_reaches_the_terminal_while_a_library_redirects_standard_error(tmp_path):
    main = """
import os
os.dup2(os.open(os.devnull, os.O_WRONLY), 2); ready(); time.sleep(600)
"""
    assert interrupted(start(main, cwd=tmp_path))[2] == "stopped by SIGINT\n"


def test_within_asked_the_first_signal_calls_the_function_and_the_second_ends_the_command(tmp_path):
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


def test_within_raised_a_signal_raises_keyboard_interrupt_in_the_main_thread(tmp_path):
    main = """
try:
    with interrupt.raised():
        ready(); time.sleep(600)
except KeyboardInterrupt:
    print("finished"); return 5
"""
    assert interrupted(start(main, cwd=tmp_path)) == (5, "finished\n", "")


def test_a_library_call_installs_handlers_only_in_the_main_thread_and_only_within_it():
    """As in a notebook, which never calls `watch`."""

    def handlers():
        return [signal.getsignal(signum) for signum in interrupt.SIGNALS]

    def within():
        with interrupt.asked(lambda signum: None):
            return handlers()

    before, results = handlers(), []
    thread = threading.Thread(target=lambda: results.append(within()))
    thread.start()
    thread.join()
    assert results == [before]
    assert within() != before
    assert handlers() == before
