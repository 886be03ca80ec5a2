"""SIGINT and SIGTERM: a command ends with one line and exit code 130 or 143, and leaves nothing half written.

A command calls `watch` before it imports anything else, so this file imports little, and only the standard library.
From then on a signal ends the process at once, whatever its threads do: a separate thread waits for the signal, since
Python runs handlers in the main thread, which may be inside a compilation for a minute. Code that has to finish
something first uses `asked` or `raised`, which change what the first signal does; a second one always ends the process.

Only `watch` changes the process for good, and only commands call it. `undone` registers a function and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

__all__ = ["SIGNALS", "asked", "not_inherited", "raised", "undone", "watch"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that end a command
BEHIND_SECONDS = 1.0  # for the watching thread to receive what the handler has
FLUSH_SECONDS = 1.0  # for buffered output; the process that reads it may have stopped reading


class _Response:
    """What the first signal does; `act` runs in the watching thread or in the main thread, perhaps in both."""

    def __init__(self, act: Callable[[int], None], *, raises: bool):
        self.act, self.raises = act, raises
        self.by_thread = 0  # signals that the watching thread has received
        self.by_handler = 0  # signals that Python's handler has received


_responses: list[_Response] = []
_undo: list[Callable[[], object]] = []
_exiting = threading.Lock()
_note = ""
_stderr = 2  # a copy once `watch` was called: a library may redirect descriptor 2 for a while


def watch(note: str = "") -> None:
    """Make a signal end this process at once, by one line on standard error. A second call does nothing.

    Args:
        note: the end of that line, such as "; the same command goes on from here".
    """
    global _note, _stderr
    if _stderr != 2:
        return
    _note = note
    with contextlib.suppress(OSError):  # it was closed before the process started
        _stderr = os.dup(2)
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(receiver,), name="signals", daemon=True).start()
    for signum in SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # a shell's background job ignores SIGINT: Ctrl-C is not for it
            signal.signal(signum, _handle)


@contextlib.contextmanager
def asked(act: Callable[[int], None], signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[None]:
    """Within it the first signal calls `act` with its number, from any thread and perhaps twice.

    In a process that does not `watch`, the main thread installs handlers within it, and another thread installs none:
    Python has handlers in the main thread only.

    Args:
        act: returns at once, and raises nothing.
        signals: the signals for which such handlers are installed.
    """
    with _responding(_Response(act, raises=False), signals):
        yield


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within it the first signal raises KeyboardInterrupt in the main thread."""
    with _responding(_Response(lambda signum: None, raises=True), SIGNALS):
        yield


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Within it a signal that ends the process calls `undo` first; nothing else calls it.

    Args:
        undo: removes what is half written; an exception of it is ignored.
    """
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


@contextlib.contextmanager
def not_inherited() -> Iterator[None]:
    """Make processes and threads started within it ignore SIGINT: a terminal sends Ctrl-C to all of its processes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _responding(response: _Response, signals: Sequence[signal.Signals]) -> Iterator[None]:
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in signals:
            if signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler):
                before[signum] = signal.signal(signum, _handle)
    _responses.append(response)
    try:
        yield
    finally:
        _let_the_thread_catch_up(response)
        _responses.remove(response)
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _let_the_thread_catch_up(response: _Response) -> None:
    """Wait until the watching thread has received what the handler has; later it would end the process for it."""
    until = time.monotonic() + BEHIND_SECONDS
    while _stderr != 2 and response.by_thread < response.by_handler and time.monotonic() < until:
        time.sleep(0.001)


def _wait(receiver: int) -> None:
    """Receive signals in the watching thread: each byte is the number of one."""
    while numbers := os.read(receiver, 1):
        _receive(numbers[0], in_handler=False)


def _handle(signum: int, frame: FrameType | None) -> None:
    """Receive a signal in the main thread: an event loop that took the wake-up descriptor leaves no other way."""
    del frame
    _receive(signum, in_handler=True)


def _receive(signum: int, *, in_handler: bool) -> None:
    response = _responses[-1] if _responses else None
    if response is None:
        _exit(signum)
        return
    if in_handler:
        response.by_handler += 1
    else:
        response.by_thread += 1
    if max(response.by_handler, response.by_thread) > 1:
        _exit(signum)
    else:
        response.act(signum)
        if in_handler and response.raises:
            raise KeyboardInterrupt


def _exit(signum: int) -> None:
    """End the process without an exception, which a library could swallow and other threads would print."""
    if not _exiting.acquire(blocking=False):
        return  # another thread does it, or this thread was interrupted while it did
    flushing = threading.Thread(target=_flush, daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread starts while the interpreter shuts down
        flushing.start()
        flushing.join(FLUSH_SECONDS)
    with contextlib.suppress(OSError):
        line_break = "\n" if os.isatty(_stderr) else ""  # after the terminal's ^C, or a progress bar
        os.write(_stderr, f"{line_break}stopped by {signal.Signals(signum).name}{_note}\n".encode())
    for undo in reversed(_undo):
        with contextlib.suppress(Exception):
            undo()
    if "multiprocessing" in sys.modules:
        for process in sys.modules["multiprocessing"].active_children():
            process.kill()
    os._exit(128 + signum)


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
