"""A stream of images: while some are on their way to the server, the head of the next one runs."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bottlefit_jax.edge.image import ImageError
from bottlefit_jax.errors import BottleFitError, ProtocolError, Unavailable

if TYPE_CHECKING:
    from bottlefit_jax.edge.call_plan import Encoded
    from bottlefit_jax.edge.channel import Answer, Deadline
    from bottlefit_jax.edge.newest import Frame
    from bottlefit_jax.edge.prediction import Prediction
    from bottlefit_jax.edge.sending import Sending

CLOSE_SECONDS = 2.0
FAILURES = (ImageError, Unavailable, ProtocolError)  # after these the next image may be classified
Finish = Callable[[], "Prediction"]  # waits for the answer to one image


@dataclass(frozen=True)
class Result:
    """What became of a frame.

    Attributes:
        number: of the frame, from 1 on; frames that were dropped have numbers, too.
        taken: when the frame was there, seconds since 1970.
        dropped: how many frames were dropped before it, since the first.
        prediction: None where there is an error.
        error: why there is no prediction: ImageError, Unavailable or ProtocolError.
    """

    number: int
    taken: float
    dropped: int
    prediction: Prediction | None = None
    error: BottleFitError | None = None


def classify(frames: Iterator[Frame], begin: Callable[[Frame], Finish], *, in_flight: int) -> Generator[Result]:
    """Begin frames in a thread, and yield their results in order.

    Args:
        frames: each is taken when there is room for it, from one thread. They are closed at the end.
        begin: prepares and sends a frame, in that thread.
        in_flight: frames that have begun and are not yet yielded, at most.

    Raises:
        BottleFitError: no further frame can be classified: `frames`, `begin` or the server says so.
    """
    room, stopped = threading.Semaphore(in_flight), threading.Event()
    begun: queue.SimpleQueue[tuple[Frame, Finish] | BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                if (frame := next(frames, None)) is None:
                    break
                begun.put((frame, _attempted(begin, frame)))
            begun.put(None)
        except BaseException as error:  # raised again where the results are taken
            begun.put(error)
        finally:
            with contextlib.suppress(AttributeError):
                frames.close()  # pyright: ignore[reportAttributeAccessIssue]

    thread = threading.Thread(target=run, daemon=True, name="stream")  # a camera may hang
    thread.start()
    try:
        while (item := begun.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            frame, finish = item
            result = _result(frame, finish)
            room.release()
            yield result
    finally:
        stopped.set()
        room.release()
        thread.join(CLOSE_SECONDS)


def _attempted(begin: Callable[[Frame], Finish], frame: Frame) -> Finish:
    """Begin a frame; where that fails for this frame alone, its end fails."""
    try:
        return begin(frame)
    except FAILURES as error:
        failure = error

    def fail() -> Any:
        raise failure

    return fail


def _result(frame: Frame, finish: Finish) -> Result:
    try:
        return Result(frame.number, frame.taken, frame.dropped, finish())
    except FAILURES as error:
        return Result(frame.number, frame.taken, frame.dropped, error=error)


def classify_sent(
    frames: Iterator[Frame],
    prepare: Callable[[Frame], Sending],
    send: Callable[[Encoded, Deadline], Answer],
    predict: Callable[[Sending, Answer, float], Prediction],
    *,
    in_flight: int,
) -> Generator[Result]:
    """Yield the results of frames that are sent while others have no answer yet.

    Args:
        frames: as in `classify`.
        prepare: runs the head on a frame.
        send: sends and waits for the answer; called from `in_flight` threads.
        predict: from what was sent, its answer, and when that was there, as of `time.perf_counter`.
        in_flight: as in `classify`.
    """
    open_deadlines: set[Deadline] = set()
    threads = ThreadPoolExecutor(in_flight, "bottlefit-stream")

    def answer(sending: Sending) -> tuple[Answer, float]:
        try:
            return send(sending.image, sending.deadline), time.perf_counter()
        finally:
            open_deadlines.discard(sending.deadline)

    def begin(frame: Frame) -> Finish:
        sending = prepare(frame)
        open_deadlines.add(sending.deadline)
        call = threads.submit(answer, sending)
        return lambda: predict(sending, *call.result())

    try:
        with contextlib.closing(classify(frames, begin, in_flight=in_flight)) as results:
            yield from results
    finally:
        for deadline in list(open_deadlines):  # their answers have no use any more
            deadline.end()
        threads.shutdown(wait=False, cancel_futures=True)
