"""The newest frame of a source that does not wait, such as a camera."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

CLOSE_SECONDS = 2.0


class Frame(NamedTuple):
    """A frame, and when it was there.

    Attributes:
        number: from 1 on; frames that were dropped have numbers, too.
        taken: seconds since 1970.
        image: the frame.
        dropped: how many frames were dropped before it, since the first.
        since: when it was there, on the monotonic clock: its deadline is counted from then.
    """

    number: int
    taken: float
    image: Any
    dropped: int = 0
    since: float | None = None


def in_turn(images: Iterable[Any]) -> Iterator[Frame]:
    """Yield every image when it is asked for."""
    for number, image in enumerate(images, 1):
        yield Frame(number, time.time(), image, since=time.monotonic())


def newest(images: Iterable[Any]) -> Iterator[Frame]:
    """Yield the newest image at each time; a thread takes them all, and drops those that nothing has asked for.

    Args:
        images: their iterator ends, or raises, where there will be no more. It is closed at the end. What it raises is
            raised again, once the image before has been yielded.
    """
    there = threading.Condition()
    held: list[Frame] = []  # the newest, at most one
    ended: list[BaseException | None] = []
    stopped = threading.Event()

    def take() -> None:
        dropped, error = 0, None
        iterator = iter(images)
        try:
            for frame in in_turn(iterator):
                with there:
                    dropped += len(held)
                    held[:] = [frame._replace(dropped=dropped)]
                    there.notify()
                if stopped.is_set():
                    break
        except BaseException as raised:  # raised again where the images are taken
            error = raised
        finally:
            with contextlib.suppress(AttributeError):
                iterator.close()  # pyright: ignore[reportAttributeAccessIssue]
            with there:
                ended.append(error)
                there.notify()

    thread = threading.Thread(target=take, daemon=True, name="newest")  # a camera may hang
    thread.start()
    try:
        while True:
            with there:
                there.wait_for(lambda: held or ended)
                if not held:
                    break
                frame = held.pop()
            yield frame
        if ended[0] is not None:
            raise ended[0]
    finally:
        stopped.set()
        thread.join(CLOSE_SECONDS)
