"""A signal requests a stop only while the loop runs its steps; afterwards the handlers are as before."""

import os
import signal

import pytest

from bottlefit_jax.training.loop import StopRequest, StopSignal


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_a_stop_while_the_loop_runs(signum):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stop = StopSignal()
    assert not stop.reached(0)
    with stop.listening():
        os.kill(os.getpid(), signum)
        assert stop.reached(1)
    assert stop.signum == signum
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_on_several_hosts_sigint_becomes_sigterm(monkeypatch):
    """jax.distributed handles SIGTERM, and makes all hosts stop at the same step."""
    monkeypatch.setattr("jax.process_count", lambda: 2)
    sent = []
    stop = StopSignal()
    with stop.listening():
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        monkeypatch.setattr("os.kill", lambda pid, signum: sent.append((pid, signum)))
        signal.raise_signal(signal.SIGINT)
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_a_stop_request_installs_no_handler():
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stop = StopRequest()
    with stop.listening():
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        assert not stop.reached(1)
        stop.request()
        assert stop.reached(2)
    assert stop.signum == signal.SIGTERM
