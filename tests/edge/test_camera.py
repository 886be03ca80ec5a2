import importlib.util
import re
import sys
import threading
import types

import numpy as np
import pytest

from bottlefit_jax.edge import camera
from bottlefit_jax.errors import Unavailable, UserError

RED = np.array([255, 0, 0], np.uint8)


@pytest.fixture
def picamera(monkeypatch):
    """A Picamera2 with camera 0, which sees red; the list of closed cameras."""
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

        def isOpened(self):  # noqa: N802
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


def test_picamera2_gives_rgb_and_is_closed(picamera):
    frames = camera.frames(0)
    assert (next(frames) == RED).all()
    assert next(frames).shape == (48, 64, 3)
    assert not picamera
    frames.close()
    assert len(picamera) == 1


def test_without_picamera2_opencv_gives_rgb(opencv):
    frames = camera.frames(0)
    assert (next(frames) == RED).all()
    next(frames)
    with pytest.raises(Unavailable, match="camera 0 gives no more frames"):
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


def test_a_camera_that_stops_giving_frames_ends_in_an_error(picamera, monkeypatch):
    stuck = threading.Event()
    take = sys.modules["picamera2"].Picamera2.capture_array

    def once(self, taken=[]):  # noqa: B006
        if taken:
            stuck.wait(20)
        taken.append(self)
        return take(self)

    monkeypatch.setattr(sys.modules["picamera2"].Picamera2, "capture_array", once)
    monkeypatch.setattr(camera, "READ_SECONDS", 0.1)  # the first frame may take OPEN_SECONDS
    monkeypatch.setattr(camera, "CLOSE_SECONDS", 0.1)
    frames = camera.frames(0)
    next(frames)
    with pytest.raises(Unavailable, match=r"^camera 0 gave no frame for 0.1 seconds$"):
        next(frames)
    stuck.set()


def test_a_camera_that_never_opens_ends_in_an_error(opencv, monkeypatch):
    stuck = threading.Event()
    monkeypatch.setattr(sys.modules["cv2"], "VideoCapture", lambda _: stuck.wait(20))
    monkeypatch.setattr(camera, "OPEN_SECONDS", 0.1)
    monkeypatch.setattr(camera, "CLOSE_SECONDS", 0.1)
    with pytest.raises(Unavailable, match=r"^camera rtsp://host/stream gave no frame for 0.1 seconds$"):
        next(camera.frames("rtsp://user:secret@host/stream"))
    stuck.set()


NUMPY_1 = "pip install 'numpy<2' where it is built for NumPy 1"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("raise ValueError('numpy.dtype size changed')", f"(numpy.dtype size changed): {NUMPY_1}"),
        ("raise ImportError('libcamera.so.0.5')", "(libcamera.so.0.5): repair it"),
        ("import libcamera_", "(No module named 'libcamera_'): repair it"),
    ],
)
def test_a_picamera2_that_cannot_be_imported_is_one_line_with_the_reason(tmp_path, monkeypatch, line, shown):
    (tmp_path / "picamera2.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    message = f"Picamera2 is installed but cannot be imported {shown}, or use OpenCV with --camera /dev/video4"
    with pytest.raises(UserError, match=re.escape(message)):
        camera.frames(4)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [("libGL.so.1: cannot open", "repair it"), ("numpy.core.multiarray failed to import", NUMPY_1)],
)
def test_an_opencv_that_cannot_be_imported_is_one_line_with_the_reason(opencv, tmp_path, monkeypatch, reason, remedy):
    (tmp_path / "cv2.py").write_text(f"raise ImportError({reason!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2")
    with pytest.raises(UserError, match=re.escape(f"OpenCV does not work here: {reason}: {remedy}")):
        next(camera.frames(0))


@pytest.fixture
def sources(opencv, monkeypatch):
    """What OpenCV was asked to open; it opens everything."""
    opened = []

    class VideoCapture(sys.modules["cv2"].VideoCapture):
        def __init__(self, *source):
            opened.append(source)
            super().__init__(0)

    fake = sys.modules["cv2"]
    monkeypatch.setattr(fake, "VideoCapture", VideoCapture)
    fake.CAP_GSTREAMER = 1800
    fake.videoio_registry = types.SimpleNamespace(hasBackend=lambda backend: backend == 1800)
    return opened


def test_a_device_a_url_and_a_pipeline_are_opened_by_opencv(sources, tmp_path):
    (tmp_path / "video0").write_bytes(b"")
    device, url = str(tmp_path / "video0"), "rtsp://user:secret@host:554/stream"
    pipeline = "nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! appsink"
    for source in ("2", device, url, pipeline):
        assert (next(camera.frames(source)) == RED).all()
    assert sources == [(2,), (device,), (url,), (pipeline, 1800)]
    assert [camera.name_of(source) for source in (2, url)] == ["camera 2", "camera rtsp://host:554/stream"]


def test_a_source_that_does_not_exist_is_one_line(sources):
    with pytest.raises(UserError, match=r"no camera /dev/video9\d: there is no such device or file"):
        next(camera.frames("/dev/video99"))
    for source in ("-1", "front", ""):
        with pytest.raises(UserError, match=f"no camera {source}: give a number, a device such as /dev/video0, a URL"):
            next(camera.frames(source))
    with pytest.raises(UserError, match="at most 4 digits"):
        camera.frames("99999999999")
    assert not sources


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="needs OpenCV")
def test_the_real_opencv_refuses_in_one_line(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    for source in ("77", "rtsp://127.0.0.1:9/stream", "/dev/null"):
        with pytest.raises(UserError, match=f"no camera {source} that OpenCV can open"):
            next(camera.frames(source))
    import cv2

    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        with pytest.raises(UserError, match="this OpenCV has no GStreamer"):
            next(camera.frames("videotestsrc ! appsink"))
