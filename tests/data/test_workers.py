"""How a worker process died, in one line; and no signal that it would answer by a traceback."""

import signal

import pytest

from bottlefit_jax.data import workers
from bottlefit_jax.errors import UserError


def dying(code):
    yield 1
    raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}. Search the logs above")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            -signal.SIGBUS,
            r"no room for its batches in /dev/shm, which has [\d,.]+ MiB: .*worker_type=thread",
        ),
        (-signal.SIGKILL, "ended by SIGKILL: memory is short"),
        (-signal.SIGSEGV, "ended by SIGSEGV$"),
    ],
)
def test_a_killed_worker_is_a_line_that_says_what_helps(code, message):
    batches = workers.supervised(dying(int(code)))
    assert next(batches) == 1
    with pytest.raises(UserError, match=message):
        next(batches)


def test_another_error_of_a_worker_stays_what_it_is():
    with pytest.raises(RuntimeError, match="exit code 1"):
        list(workers.supervised(dying(1)))


def test_workers_start_where_sigint_is_blocked_and_the_caller_keeps_it():
    def batches():
        yield signal.pthread_sigmask(signal.SIG_BLOCK, ())

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT in next(workers.supervised(batches()))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
