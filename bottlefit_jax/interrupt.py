"""What SIGINT and SIGTERM do to a command: one line, exit code 130 or 143, nothing half done. Standard library only.

A command calls `watch` before it imports anything else, and little is imported here. From then on a signal ends the
process at once, whatever its threads do: a thread of its own waits for it, since Python runs handlers in the main
thread, which may be inside a compilation for a minute. Where there is something to finish first, `asked` and `raised`
change what the first signal does; a second one always ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FLUSH_SECONDS = 1.0  # for what was printed; whoever should read it may have stopped reading


class _Answer:
    """What the first signal does; `act` runs in the watching thread or the main one, perhaps in both."""

    def __init__(self, act: Callable[[int], None], *, raises: bool):
        self.act, self.raises = act, raises
        self.by_thread = 0  # signals that the watching thread has seen
        self.by_handler = 0  # and Python's handler


_answers: list[_Answer] = []
_undo: list[Callable[[], object]] = []
_leaving = threading.Lock()
_note = ""
_stderr = 2  # the terminal's, once it is watched: a library may have the other one redirected for a while


def watch(note: str = "") -> None:
    """Make a signal end this process at once, by one line on standard error. A second call does nothing.

    Args:
        note: what follows in that line, such as "; the same command goes on from here".
    """
    global _note, _stderr
    if _stderr != 2:
        return
    _note = note
    with contextlib.suppress(OSError):  # it was closed before we started
        _stderr = os.dup(2)
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(receiver,), name="signals", daemon=True).start()
    for signum in SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # as a shell has it for a background job: Ctrl-C is not for it
            signal.signal(signum, _handle)


@contextlib.contextmanager
def asked(act: Callable[[int], None], signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[None]:
    """Within it the first signal calls `act` with its number, from any thread and perhaps twice.

    In a process that does not `watch`, handlers are installed for as long, where that can be done: in the main thread.

    Args:
        act: returns at once, and raises nothing.
        signals: for which such handlers are installed.
    """
    with _answered(_Answer(act, raises=False), signals):
        yield


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within it the first signal raises KeyboardInterrupt in the main thread."""
    with _answered(_Answer(lambda signum: None, raises=True), SIGNALS):
        yield


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Within it a signal that ends the process calls `undo` first; nobody calls it otherwise."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


@contextlib.contextmanager
def not_inherited() -> Iterator[None]:
    """Processes and threads started within it never see SIGINT: Ctrl-C goes to all processes of a terminal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _answered(answer: _Answer, signals: Sequence[signal.Signals]) -> Iterator[None]:
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in signals:
            if signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler):
                before[signum] = signal.signal(signum, _handle)
    _answers.append(answer)
    try:
        yield
    finally:
        _answers.remove(answer)
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _wait(receiver: int) -> None:
    """The watching thread: a byte is a signal's number."""
    while numbers := os.read(receiver, 1):
        _receive(numbers[0], in_handler=False)


def _handle(signum: int, frame: FrameType | None) -> None:
    """Python's handler, in the main thread: where another event loop has taken the wake-up, it does all of the work."""
    del frame
    _receive(signum, in_handler=True)


def _receive(signum: int, *, in_handler: bool) -> None:
    answer = _answers[-1] if _answers else None
    if answer is None:
        _leave(signum)
        return
    if in_handler:
        answer.by_handler += 1
    else:
        answer.by_thread += 1
    if max(answer.by_handler, answer.by_thread) > 1:
        _leave(signum)
    else:
        answer.act(signum)
        if in_handler and answer.raises:
            raise KeyboardInterrupt


def _leave(signum: int) -> None:
    """End the process: no exception that a library could swallow, no thread that prints one more."""
    if not _leaving.acquire(blocking=False):
        return  # another thread is at it, or this one was interrupted in it
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
