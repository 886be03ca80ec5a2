"""The command over a camera or a video file: its lines, its signals, its files."""

import dataclasses
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from bottlefit_jax.edge import live
from bottlefit_jax.edge.__main__ import main
from bottlefit_jax.edge.classify import parse
from bottlefit_jax.edge.prediction import BytesSent, Prediction, Route, Timings
from bottlefit_jax.edge.stream import Result
from bottlefit_jax.errors import Unavailable
from tests.edge.test_command import ROOT, refused


def test_the_camera_gives_as_many_frames_as_asked_for(bundle, server, image, capsys, monkeypatch):
    monkeypatch.setattr("bottlefit_jax.edge.camera.frames", lambda source, mode: itertools.repeat(image))
    command = ["--bundle", str(bundle), "--server", server, "--camera", "0", "--frames", "2", "--device-id", "door 3"]
    before = time.time()
    assert main(command) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == [f"camera 0 frame {line['frame']}" for line in lines]
    first, second = lines
    assert first["frame"] + second["dropped"] - first["dropped"] + 1 == second["frame"]
    assert before <= first["taken"] <= second["taken"] <= time.time()
    assert {line["device"] for line in lines} == {"door 3"}
    assert {line["route"]["path"] for line in lines} == {"raw"}


@pytest.mark.parametrize(("flags", "most"), [((), 8), (("--in-flight", "2"), 2)])
def test_so_many_frames_of_a_video_are_on_their_way_at_once_and_no_more(
    bundle, server, tail, image, flags, most, capsys, monkeypatch, tmp_path
):
    """The source is asked for the next frame only when one of those before has its answer."""
    video = tmp_path / "video.mp4"
    video.touch()
    taken, answered = [], []

    def frames(source, mode=None):
        for number in range(12):
            while number < most and len(tail.requests) < number:  # the first ones are there before any is answered
                time.sleep(0.01)
            taken.append(number - len(answered))
            if number == most - 1:
                threading.Timer(0.2, tail.gate.set).start()
            yield image

    def alter(response):
        answered.append(1)
        return response

    tail.alter = alter
    tail.gate.clear()
    monkeypatch.setattr("bottlefit_jax.edge.camera.frames", frames)
    command = ["--bundle", str(bundle), "--server", server, "--camera", str(video), "--deadline-ms", "60000"]
    assert main([*command, *flags]) == 0
    assert max(taken) == most - 1
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_a_missing_camera_is_one_line(bundle, server, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(VideoCapture=lambda _: Closed()))
    assert "no camera 5" in refused(capsys, "--bundle", bundle, "--server", server, "--camera", "5")


def test_a_camera_that_gives_no_first_frame_ends_the_run_with_one_line(bundle, server, capsys, monkeypatch):
    def frames(source, mode):
        raise Unavailable("camera 0 gave no frame for 30 seconds")
        yield

    monkeypatch.setattr("bottlefit_jax.edge.camera.frames", frames)
    assert "camera 0 gave no frame for 30 seconds" in refused(
        capsys, "--bundle", bundle, "--server", server, "--camera", "0"
    )


def test_a_camera_that_vanishes_is_opened_again(bundle, server, image, capsys, monkeypatch):
    def frames(source, mode):
        yield image
        raise Unavailable("camera 0 gave no frame for 10 seconds")

    monkeypatch.setattr("bottlefit_jax.edge.camera.frames", frames)
    monkeypatch.setattr("bottlefit_jax.edge.camera.FIRST_PAUSE", 0.01)
    assert main(["--bundle", str(bundle), "--server", server, "--camera", "0", "--frames", "3"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.startswith("error: camera 0 gave no frame for 10 seconds; it is opened again in 0.01 seconds\n")


def test_every_frame_of_a_video_file_has_a_result_and_one_that_fails_is_an_error(
    bundle, server, image, capsys, monkeypatch, tmp_path
):
    video = tmp_path / "video.mp4"
    video.touch()
    images = [image, image[:, :, :2], image, image]
    monkeypatch.setattr("bottlefit_jax.edge.camera.frames", lambda source, mode=None: iter(images))
    assert main(["--bundle", str(bundle), "--server", server, "--camera", str(video)]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["frame"] for line in out.splitlines()] == [1, 3, 4]
    assert err.startswith(f"error: camera {video} frame 2: ")
    assert err.count("\n") == 1


def test_a_terminal_gets_one_line_that_says_how_it_goes():
    terminal = io.StringIO()
    status = live.StatusLine("camera 0", terminal)
    timings = Timings(1, 2, 0, 0, 5, 0, 0, 2, 10)
    sent = BytesSent(100, 50, 10, 160, 2)
    for number in range(1, 5):
        timings = dataclasses.replace(timings, total=10.0 * number)
        path = "local" if number == 2 else "lossless"
        prediction = Prediction("cat", 3, 0.5, timings, sent, (("cat", 3, 0.5),), None, Route(path, "why"))
        status.add(Result(number, 0.0, 7, prediction))
    status.add(Result(5, 0.0, 8, error=Unavailable("no answer")))
    status.end()
    last = terminal.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("camera 0: cat  ")
    assert " frames/s  dropped 8  failed 1  lossless 60 %  local 20 %  p50 20 ms, p95 40 ms" in last
    assert "\n" not in terminal.getvalue().rstrip()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_a_cameras_run_in_order(bundle, server, image, signum, code, tmp_path):
    program = (
        "import itertools, numpy as np\n"
        "from bottlefit_jax.cli import command\n"
        "from bottlefit_jax.edge import camera\n"
        "image = np.zeros((32, 32, 3), np.uint8)\n"
        "camera.frames = lambda source, mode: itertools.repeat(image)\n"
        "from bottlefit_jax.edge.__main__ import main\n"
        "command.run(main, extra='edge')\n"
    )
    flags = ["--bundle", str(bundle), "--server", server, "--camera", "0", "--deadline-ms", "60000"]
    command = [sys.executable, "-c", program, *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert json.loads(running.stdout.readline())["device"]
        running.send_signal(signum)
        out, err = running.communicate(timeout=100)
    assert (running.returncode, err) == (code, "")
    assert all(json.loads(line) for line in out.splitlines())


class Closed:
    def isOpened(self):  # noqa: N802
        return False

    def release(self):
        pass


def test_the_health_file_says_how_a_cameras_run_goes(bundle, server, image, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("bottlefit_jax.edge.camera.frames", lambda source, mode: itertools.repeat(image))
    monkeypatch.setattr(live, "HEALTH_SECONDS", 0.0)
    path = tmp_path / "health.json"
    command = ["--bundle", str(bundle), "--server", server, "--camera", "0", "--frames", "3", "--health", str(path)]
    before = time.time()
    assert main(command) == 0
    health = json.loads(path.read_text())
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (health["frames"], health["failed"], health["dropped"]) == (3, 0, last["dropped"])
    assert before <= health["answered"] <= health["written"] <= time.time()
    command[-1] = str(tmp_path / "none" / "health.json")
    assert f"cannot write {command[-1]}" in refused(capsys, *command)


def test_the_unit_of_the_service_calls_the_command_with_flags_that_it_has():
    folder = ROOT / "docs" / "service"
    values = dict(re.findall(r"^([A-Z]+)=(.*)$", (folder / "edge.env").read_text(), re.MULTILINE))
    unit = (folder / "bottlefit-edge.service").read_text()
    line = re.search(r"^ExecStart=\S+ -m bottlefit_jax.edge (.*)$", unit, re.MULTILINE)[1]
    words = re.sub(r"\$\{?([A-Z]+)\}?", lambda match: values[match[1]], line).split()
    options = parse(words, None)
    assert (options.policy, options.local, options.wait, options.device_id) == ("auto", True, True, "door-3")
    assert str(options.health).startswith("/run/bottlefit/")
