"""A signal requests a stop only while the loop runs its steps; afterwards the handlers are as before.

A signal that comes at the wrong moment ends a process, so those that are sent have processes of their own.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax.training.loop import StopRequest

ROOT = Path(__file__).parents[2]
ONE_HOST = """
import os, signal, sys
from bottlefit_jax.training.loop import StopSignal

signum = int(sys.argv[1])
before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
stop = StopSignal()
assert not stop.reached(0)
with stop.listening():
    os.kill(os.getpid(), signum)
    assert stop.reached(1)
assert stop.signum == signum
assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
print("as before")
"""
SEVERAL_HOSTS = """
import os, signal
import jax
from bottlefit_jax.training.loop import StopSignal

jax.process_count = lambda: 2
sent, stop = [], StopSignal()
with stop.listening():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    os.kill = lambda pid, signum: sent.append((pid, signum))
    signal.raise_signal(signal.SIGINT)
assert sent == [(os.getpid(), signal.SIGTERM)]
print("as SIGTERM")
"""


def printed(script, *arguments):
    """What a script prints, in a process whose signals have their defaults."""
    default = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    words = [sys.executable, "-c", default + script, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_a_stop_while_the_loop_runs(signum):
    assert printed(ONE_HOST, int(signum)) == "as before\n"


def test_on_several_hosts_sigint_becomes_sigterm():
    """jax.distributed handles SIGTERM, and makes all hosts stop at the same step."""
    assert printed(SEVERAL_HOSTS) == "as SIGTERM\n"


def test_a_stop_request_installs_no_handler():
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stop = StopRequest()
    with stop.listening():
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        assert not stop.reached(1)
        stop.request()
        assert stop.reached(2)
    assert stop.signum == signal.SIGTERM
