"""Frames of a camera: by Picamera2 where it is installed, as on a Raspberry Pi, else by OpenCV."""

from collections.abc import Iterator

import numpy as np

from bottlefit_jax.edge.interpreter import silenced
from bottlefit_jax.errors import UserError


def frames(number: int) -> Iterator[np.ndarray]:
    """Frames of camera `number`, uint8 [H, W, 3] in RGB order, until the iterator is closed.

    Raises:
      UserError: neither library is installed, there is no such camera, or it stopped giving frames.
    """
    try:
        from picamera2 import Picamera2  # pyright: ignore[reportMissingImports]
    except ImportError:
        return _by_opencv(number)
    return _by_picamera2(Picamera2, number)


def _by_picamera2(make, number: int) -> Iterator[np.ndarray]:
    camera = None
    try:
        camera = make(number)
        # Picamera2 names the bytes of a word: BGR888 is red first in memory
        camera.configure(camera.create_video_configuration(main={"format": "BGR888", "size": (640, 480)}))
        camera.start()
        while True:
            yield np.asarray(camera.capture_array())
    except (IndexError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no camera {number} that Picamera2 can use: {reason}") from None
    finally:
        if camera is not None:
            camera.close()


def _by_opencv(number: int) -> Iterator[np.ndarray]:
    try:
        import cv2
    except ImportError:
        raise UserError("--camera needs Picamera2, or OpenCV: pip install 'bottlefit-jax[camera]'") from None
    with silenced():  # it logs every way that it tried
        camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise UserError(f"no camera {number} that OpenCV can open")
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one that waited for the last answer
        while True:
            there, frame = camera.read()
            if not there:
                raise UserError(f"camera {number} gives no more frames")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        camera.release()
