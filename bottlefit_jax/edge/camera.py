"""Frames of a camera or a video file, by Picamera2 where it is installed, as on a Raspberry Pi, else by OpenCV.

A separate thread opens and reads the camera, so that a camera that hangs is an error.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottlefit_jax.errors import Unavailable, UserError

OPEN_SECONDS, READ_SECONDS = 30.0, 10.0  # the longest wait for the first frame (streams start slowly), and for others
CLOSE_SECONDS = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a camera that vanished is opened again; they double


@dataclass(frozen=True)
class Mode:
    """How a camera is asked to work; it may do otherwise.

    Attributes:
        size: (width, height) of its frames, pixels; None leaves it to the camera.
        rate: frames a second; None leaves it to the camera.
    """

    size: tuple[int, int] | None = None
    rate: float | None = None


def lasting(source: str | int, mode: Mode, note: Callable[[str], object]) -> Iterator[np.ndarray]:
    """Read frames of a camera, and open it again where it vanishes, until the iterator is closed.

    Args:
        source: as of `frames`.
        mode: of the camera.
        note: called with a line that says why the camera is opened again.

    Raises:
        UserError, Unavailable: as `frames`, before the first frame.
    """
    seen, pause = False, FIRST_PAUSE
    while True:
        try:
            for frame in frames(source, mode):
                yield frame
                seen, pause = True, FIRST_PAUSE
        except (UserError, Unavailable) as error:
            if not seen:
                raise
            note(f"{error}; it is opened again in {pause:g} seconds")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def frames_of_file(path: str) -> Iterator[np.ndarray]:
    """Read the frames of a video file, to its end.

    Raises:
        UserError: OpenCV cannot read it.
    """
    first = True
    try:
        for frame in frames(path):
            yield frame
            first = False
    except Unavailable:
        if first:
            raise UserError(f"{path} is not a video that OpenCV can read") from None


def frames(source: str | int, mode: Mode | None = None) -> Iterator[np.ndarray]:
    """Read frames of a camera until the iterator is closed.

    Args:
        source: the camera's number; a device (or a video file) such as /dev/video0; a URL; or a GStreamer pipeline,
            such as `nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR !
            appsink`.
        mode: of the camera; None leaves it to the camera. A pipeline and a URL have their own.

    Returns:
        An iterator over [H, W, 3] uint8, in RGB order.

    Raises:
        UserError: neither library is installed and works, or there is no such camera.
        Unavailable: the camera gives no frame.
    """
    name, mode = name_of(source), mode or Mode()
    if not str(source).isdecimal():
        return _in_thread(lambda: _by_opencv(source, name, mode), name)
    if len(str(source)) > 4:  # may not fit into a C integer
        raise UserError(f"no {name}: a camera's number has at most 4 digits")
    number = int(source)
    picamera2 = _picamera2(number)
    if picamera2 is None:
        return _in_thread(lambda: _by_opencv(number, name, mode), name)
    return _in_thread(lambda: _by_picamera2(picamera2, number, mode), name)


def name_of(source: str | int) -> str:
    """Return the camera's name for output; without the user and password of a URL."""
    scheme, colon, rest = str(source).partition("://")
    host, slash, path = rest.partition("/")
    return f"camera {scheme}{colon}{host.rpartition('@')[2]}{slash}{path}" if colon else f"camera {source}"


def _in_thread(start: Callable[[], Generator[np.ndarray]], name: str) -> Iterator[np.ndarray]:
    """Yield what the generator `start()` yields; a thread computes each frame when it is asked for."""
    requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
    answers: queue.SimpleQueue[np.ndarray | Exception] = queue.SimpleQueue()

    def read() -> None:
        try:
            with contextlib.closing(start()) as images:
                while requests.get():
                    answers.put(next(images))
        except Exception as error:  # raised again where the frame is asked for
            answers.put(error)

    thread = threading.Thread(target=read, daemon=True, name="camera")  # it may hang
    thread.start()
    seconds = OPEN_SECONDS
    try:
        while True:
            requests.put(True)
            try:
                frame = answers.get(timeout=seconds)
            except queue.Empty:
                raise Unavailable(f"{name} gave no frame for {seconds:g} seconds") from None
            if isinstance(frame, Exception):
                raise frame
            yield frame
            seconds = READ_SECONDS
    finally:
        requests.put(False)
        thread.join(CLOSE_SECONDS)


def _picamera2(number: int) -> Any:
    """Return Picamera2's class; None where it is not installed."""
    try:
        from picamera2 import Picamera2  # pyright: ignore[reportMissingImports]
    except Exception as error:  # a ValueError where it was built for another NumPy
        if isinstance(error, ModuleNotFoundError) and error.name == "picamera2":
            return None
        raise UserError(
            f"Picamera2 is installed but cannot be imported ({_line(error)}){_remedy(error)}, or use OpenCV with "
            f"--camera /dev/video{number}"
        ) from None
    return Picamera2


def _by_picamera2(picamera2: Any, number: int, mode: Mode) -> Generator[np.ndarray]:
    camera = None
    try:
        camera = picamera2(number)
        # Picamera2 names the bytes of a word: BGR888 has red first in memory
        main = {"format": "BGR888", "size": mode.size or (640, 480)}
        controls = {} if mode.rate is None else {"controls": {"FrameRate": mode.rate}}
        camera.configure(camera.create_video_configuration(main=main, **controls))
        camera.start()
        while True:
            yield np.asarray(camera.capture_array())
    except (IndexError, RuntimeError, OSError) as error:
        raise UserError(f"no camera {number} that Picamera2 can use: {_line(error)}") from None
    finally:
        if camera is not None:
            camera.close()


def _by_opencv(source: int | str, name: str, mode: Mode) -> Generator[np.ndarray]:
    try:
        import cv2
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise UserError(f"OpenCV does not work here: {_line(error)}") from None
        raise UserError("--camera needs Picamera2, or OpenCV: pip install 'bottlefit-jax[camera]'") from None
    except Exception as error:  # where a system library is missing, or it was built for another NumPy
        raise UserError(f"OpenCV does not work here: {_line(error)}{_remedy(error)}") from None
    if isinstance(source, str) and "!" in source:
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise UserError(f"no {name}: this OpenCV has no GStreamer; the system's package has it, pip's does not")
        camera = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    elif isinstance(source, str) and source.startswith("/") and not os.path.exists(source):
        raise UserError(f"no {name}: there is no such device or file")
    elif isinstance(source, str) and "://" not in source and not os.path.exists(source):
        raise UserError(f"no {name}: give a number, a device such as /dev/video0, a URL or a GStreamer pipeline")
    else:
        camera = cv2.VideoCapture(source)
    try:
        if not camera.isOpened():
            raise UserError(f"no {name} that OpenCV can open")
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # read the newest frame, not one from before the last answer
        if mode.size is not None:
            camera.set(cv2.CAP_PROP_FRAME_WIDTH, mode.size[0])
            camera.set(cv2.CAP_PROP_FRAME_HEIGHT, mode.size[1])
        if mode.rate is not None:
            camera.set(cv2.CAP_PROP_FPS, mode.rate)
        while True:
            ok, frame = camera.read()
            if not ok:
                raise Unavailable(f"{name} gives no more frames")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        camera.release()


def _remedy(error: Exception) -> str:
    """Return what repairs a package that cannot be imported: those of apt may be built for NumPy 1."""
    return ": pip install 'numpy<2' where it is built for NumPy 1" if "numpy" in str(error).lower() else ": repair it"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
