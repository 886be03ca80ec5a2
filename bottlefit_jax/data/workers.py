"""Grain's worker processes: they leave Ctrl-C to us, and how one died is a line that says what helps."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

from bottlefit_jax import interrupt
from bottlefit_jax.errors import UserError

T = TypeVar("T")
SHARED_MEMORY = "/dev/shm"
# Python's tracker of shared memory, a process of its own, warns of what it clears away after a run that was stopped.
SILENCE = "ignore:resource_tracker:UserWarning"


def supervised(iterator: Iterator[T]) -> Iterator[T]:
    """The batches of an iterator over worker processes, which start at its first batch.

    Raises:
        UserError: a worker was killed by a signal.
    """
    filters = os.environ.get("PYTHONWARNINGS", "")
    if SILENCE not in filters:
        os.environ["PYTHONWARNINGS"] = f"{filters},{SILENCE}".strip(",")
    resource_tracker.ensure_running()  # its start would unblock SIGINT again
    while True:
        try:
            with interrupt.not_inherited():
                batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            signals = re.search(r"terminated unexpectedly with exit code -(\d+)", str(error))
            if signals is None:
                raise
            raise UserError(_why_killed(int(signals[1]))) from error
        yield batch


def _why_killed(signum: int) -> str:
    if signum == signal.SIGBUS and os.path.isdir(SHARED_MEMORY):
        size = shutil.disk_usage(SHARED_MEMORY).total
        return (
            f"a worker process found no room for its batches in {SHARED_MEMORY}, which has {size / 2**20:,.1f} MiB: "
            "enlarge it (docker run --shm-size=1g), or set config.dataset.worker_type=thread"
        )
    hint = ": memory is short; fewer config.dataset.workers take less" if signum == signal.SIGKILL else ""
    return f"a worker process was ended by {signal.Signals(signum).name}{hint}"
