import sys
import types

import numpy as np
import pytest

from bottlefit_jax.edge import camera
from bottlefit_jax.errors import UserError

RED = np.array([255, 0, 0], np.uint8)


@pytest.fixture
def picamera(monkeypatch):
    """A Picamera2 with camera 0, which sees red; the list of what was closed."""
    closed = []

    class Picamera2:
        def __init__(self, number):
            [0][number]
            self.format = None

        def create_video_configuration(self, main):
            return main

        def configure(self, main):
            assert main["format"] == "BGR888"  # as its manual has it, red first

        def start(self):
            pass

        def capture_array(self):
            return np.broadcast_to(RED, (48, 64, 3)).copy()

        def close(self):
            closed.append(self)

    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=Picamera2))
    return closed


@pytest.fixture
def opencv(monkeypatch):
    """No Picamera2, and an OpenCV whose camera 0 sees red twice."""
    released = []

    class VideoCapture:
        def __init__(self, number):
            self.number, self.left = number, 2

        def isOpened(self):
            return self.number == 0

        def set(self, *_):
            pass

        def read(self):
            self.left -= 1
            return self.left >= 0, np.broadcast_to(RED[::-1], (48, 64, 3))

        def release(self):
            released.append(self)

    fake = types.SimpleNamespace(
        VideoCapture=VideoCapture, CAP_PROP_BUFFERSIZE=38, COLOR_BGR2RGB=4, cvtColor=lambda frame, _: frame[..., ::-1]
    )
    monkeypatch.setitem(sys.modules, "picamera2", None)
    monkeypatch.setitem(sys.modules, "cv2", fake)
    return released


def test_picamera2_gives_rgb_and_is_let_go(picamera):
    frames = camera.frames(0)
    assert (next(frames) == RED).all()
    assert next(frames).shape == (48, 64, 3)
    assert not picamera
    frames.close()
    assert len(picamera) == 1


def test_opencv_takes_its_place_and_gives_rgb(opencv):
    frames = camera.frames(0)
    assert (next(frames) == RED).all()
    next(frames)
    with pytest.raises(UserError, match="camera 0 gives no more frames"):
        next(frames)
    assert len(opencv) == 1


def test_a_missing_camera_is_one_line(opencv):
    with pytest.raises(UserError, match="no camera 3 that OpenCV can open"):
        next(camera.frames(3))
    assert len(opencv) == 1


def test_a_missing_camera_of_picamera2_is_one_line(picamera):
    with pytest.raises(UserError, match="no camera 3 that Picamera2 can use: list index"):
        next(camera.frames(3))


def test_a_missing_library_is_one_line(opencv, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"--camera needs Picamera2, or OpenCV: pip install"):
        next(camera.frames(0))
