"""Whether a run was asked to stop: only while it listens, and handlers are as before afterwards."""

import os
import signal

import pytest

from bottlefit_jax.training.loop import StopSignal


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered_while_the_loop_listens(signum):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stop = StopSignal()
    assert not stop.reached(0)
    with stop.listening():
        os.kill(os.getpid(), signum)
        assert stop.reached(1)
    assert stop.signum == signum
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_of_several_hosts_all_are_told(monkeypatch):
    """jax.distributed listens to SIGTERM, and makes all of them stop at one step."""
    monkeypatch.setattr("jax.process_count", lambda: 2)
    sent = []
    stop = StopSignal()
    with stop.listening():
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        monkeypatch.setattr("os.kill", lambda pid, signum: sent.append((pid, signum)))
        signal.raise_signal(signal.SIGINT)
    assert sent == [(os.getpid(), signal.SIGTERM)]
