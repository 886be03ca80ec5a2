"""Grain's worker processes: they ignore Ctrl-C, and the error for a killed one says what to change."""

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
# Python's tracker of shared memory is a separate process. It warns of the memory that it frees after a stopped run.
TRACKER_FILTER = "ignore:resource_tracker:UserWarning"


def supervised(iterator: Iterator[T]) -> Iterator[T]:
    """Yield the batches of an iterator over worker processes, which start at its first batch.

    Args:
        iterator: Grain's, which raises RuntimeError if a worker dies.

    Raises:
        UserError: a signal killed a worker.
    """
    _start_tracker()
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


def _start_tracker() -> None:
    """Start the tracker of shared memory without its warnings, before SIGINT is blocked: its start would unblock it."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{before},{TRACKER_FILTER}" if before else TRACKER_FILTER
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _why_killed(signum: int) -> str:
    if signum == signal.SIGBUS and os.path.isdir(SHARED_MEMORY):
        size = shutil.disk_usage(SHARED_MEMORY).total
        return (
            f"a worker process has no room for its batches in {SHARED_MEMORY}, which has {size / 2**20:,.1f} MiB: "
            "enlarge it (docker run --shm-size=1g), or set config.dataset.worker_type=thread"
        )
    hint = ": memory is short; fewer config.dataset.workers need less" if signum == signal.SIGKILL else ""
    return f"a worker process was killed by {signal.Signals(signum).name}{hint}"
