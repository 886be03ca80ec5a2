"""A killed worker is one line, workers ignore Ctrl-C, and the caller's process stays as it is."""

import os
import signal

import pytest

from bottlefit_jax.data import workers
from bottlefit_jax.errors import UserError


def batches_of_a_worker_that_dies(code):
    yield 1
    raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}. Search the logs above")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            -signal.SIGBUS,
            r"no room for its batches in /dev/shm, which has [\d,.]+ MiB: .*worker_type=thread",
        ),
        (-signal.SIGKILL, "killed by SIGKILL: memory is short"),
        (-signal.SIGSEGV, "killed by SIGSEGV$"),
    ],
)
def test_a_killed_worker_is_one_line_that_says_what_to_change(code, message):
    batches = workers.supervised(batches_of_a_worker_that_dies(int(code)))
    assert next(batches) == 1
    with pytest.raises(UserError, match=message):
        next(batches)


def test_another_error_of_a_worker_is_not_changed():
    with pytest.raises(RuntimeError, match="exit code 1"):
        list(workers.supervised(batches_of_a_worker_that_dies(1)))


def test_workers_start_with_sigint_blocked_and_the_caller_does_not_have_it_blocked():
    def batches():
        yield signal.pthread_sigmask(signal.SIG_BLOCK, ())

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT in next(workers.supervised(batches()))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("filters", [None, "ignore::DeprecationWarning"])
def test_the_callers_environment_does_not_change(monkeypatch, filters):
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    if filters is not None:
        monkeypatch.setenv("PYTHONWARNINGS", filters)
    before = dict(os.environ)
    assert list(workers.supervised(iter([1, 2]))) == [1, 2]
    assert dict(os.environ) == before


def test_the_tracker_of_shared_memory_starts_without_its_warnings(monkeypatch):
    filters = []
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::DeprecationWarning")
    monkeypatch.setattr(
        workers.resource_tracker, "ensure_running", lambda: filters.append(os.environ["PYTHONWARNINGS"])
    )
    assert list(workers.supervised(iter([1]))) == [1]
    assert filters == ["ignore::DeprecationWarning,ignore:resource_tracker:UserWarning"]
