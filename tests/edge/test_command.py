import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge import live
from bottlefit_jax.edge.__main__ import main
from bottlefit_jax.edge.classify import parse
from bottlefit_jax.edge.prediction import BytesSent, Prediction, Route, Timings
from bottlefit_jax.edge.stream import Result
from bottlefit_jax.errors import Unavailable
from tests.edge.server import serve

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, image):
    """Three images, and a file that is not an image."""
    for index in range(3):
        Image.fromarray(np.roll(image, index, axis=1)).save(tmp_path / f"{index}.png")
    (tmp_path / "1a.png").write_text("hello")
    return tmp_path


def refused(capsys, *argv):
    """The error of a command that must end with code 2 and one line."""
    assert main([str(one) for one in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_a_table_is_aligned_and_a_bad_image_does_not_end_it(bundle, server, folder, capsys):
    assert main(["--bundle", str(bundle), "--server", server, str(folder), "--top", "2"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["file", "label", "probability", "ms", "bytes"]
    assert len(lines) == 1 + 3 * 2
    assert len({len(line) for line in [lines[0], *lines[1::2]]}) == 1
    assert len({line.index("class") for line in lines[1:]}) == 1
    assert [line.split()[0] for line in lines[1::2]] == [str(folder / f"{index}.png") for index in range(3)]
    reason = "truncated, damaged or not an image (5 bytes; not an image that Pillow knows)"
    assert err == f"error: {folder}/1a.png: {reason}\n"


def test_json_is_an_object_a_line(bundle, server, folder, capsys):
    (folder / "1a.png").unlink()
    assert main(["--bundle", str(bundle), "--server", server, str(folder), "--json", "--top", "3"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["file"] for one in found] == [str(folder / f"{index}.png") for index in range(3)]
    assert set(found[0]) == {"file", "label", "index", "probability", "timings", "bytes_sent", "route", "top"}
    assert found[0]["timings"]["tail"] is None
    assert found[0]["bytes_sent"]["payload"] == 29 * 29 * 3
    assert len(found[0]["top"]) == 3
    assert found[0]["top"][0] == {key: found[0][key] for key in ("label", "index", "probability")}


def test_local_needs_no_server(bundle, image_file, capsys):
    assert main(["--bundle", str(bundle), "--local", str(image_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_sent"]["total"] == 0


def test_with_server_and_local_network_each_image_has_a_path(rated, server, tail, image_file, capsys):
    tail.rates = read_bundle(rated).read_rates()
    assert main(["--bundle", str(rated), "--server", server, "--local", str(image_file), "--json"]) == 0
    routes = [json.loads(line)["route"] for line in capsys.readouterr().out.splitlines()]
    assert {route["path"] for route in routes} <= {"lossless", "coarse", "local"}
    assert all(route["reason"] and route["likely"] > 0 for route in routes)


@pytest.mark.parametrize("path", ["coarse", "raw", "local"])
def test_a_policy_may_be_one_path_for_all_images(rated, server, tail, image_file, capsys, path):
    tail.rates = read_bundle(rated).read_rates()
    assert main(["--bundle", str(rated), "--server", server, str(image_file), "--json", "--policy", path]) == 0
    assert {json.loads(line)["route"]["path"] for line in capsys.readouterr().out.splitlines()} == {path}


def test_flags_that_name_two_paths_are_refused(rated, image_file, capsys):
    given, server = ("--bundle", rated, image_file), ("--server", "localhost:9")
    assert "leave --rate out" in refused(capsys, *given, *server, "--policy", "coarse", "--rate", "coarse")
    assert "--local is not used" in refused(capsys, *given, *server, "--local", "--rate", "coarse")
    assert "--policy auto needs --server" in refused(capsys, *given, "--local", "--policy", "auto")
    assert "rate is 'fine'; this bundle has" in refused(capsys, *given, *server, "--policy", "fine")


def test_an_image_without_an_answer_does_not_end_the_run(bundle, server, tail, folder, capsys, deadlines):
    (folder / "1a.png").unlink()
    deadlines += [60.0, 0.3]  # to connect, and for the first image
    tail.silences = 1
    assert main(["--bundle", str(bundle), "--server", server, str(folder), "--json"]) == 1
    out, err = capsys.readouterr()
    assert f"error: {folder}/0.png: no answer from {server} within 300 ms" in err
    assert [json.loads(line)["file"] for line in out.splitlines()] == [f"{folder}/1.png", f"{folder}/2.png"]


@pytest.mark.parametrize("status", ["INTERNAL", "UNKNOWN", "INVALID_ARGUMENT", "DATA_LOSS"])
def test_one_bad_answer_does_not_end_the_run(bundle, server, tail, folder, capsys, status):
    (folder / "1a.png").unlink()
    tail.refusals = [grpc.StatusCode[status]]
    assert main(["--bundle", str(bundle), "--server", server, str(folder)]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[1:]] == [f"{folder}/1.png", f"{folder}/2.png"]
    assert err == f"error: {folder}/0.png: {server} answered {status}: come back later\n"


def test_an_invalid_answer_does_not_end_the_run(bundle, server, tail, folder, capsys):
    def once(response):
        tail.alter = lambda response: response
        del response.outputs[:]

    (folder / "1a.png").unlink()
    tail.alter, tail.identity = once, "parameters"
    assert main(["--bundle", str(bundle), "--server", server, str(folder)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 + 2
    assert err == f"error: {folder}/0.png: the server answered with nothing instead of logits\n"


def test_a_permanent_answer_ends_the_run_with_the_answers_before_it(bundle, server, tail, folder, capsys):
    def replace(response):
        tail.head = "d" * 64

    tail.alter = replace
    assert main(["--bundle", str(bundle), "--server", server, str(folder)]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[1:]] == [f"{folder}/0.png"]
    assert err.splitlines()[-1].startswith(f"error: the tail on {server} belongs to another head, dddddddddddd")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1:strict", "ascii:strict"])
def test_a_name_that_the_terminal_cannot_show_does_not_end_the_run(bundle, image_file, tmp_path, encoding):
    names = [os.fsencode(tmp_path) + name for name in (b"/a\xe9.png", "/b\u20ac.png".encode(), b"/c\n\x1b[31m.png")]
    for name in names:
        shutil.copy(os.fsencode(image_file), name)
    bad = os.fsencode(tmp_path) + b"/d\xe9.png"
    with open(bad, "wb") as file:
        file.write(b"no image")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "bottlefit_jax.edge", "--bundle", str(bundle), "--local", *names, bad]
    table = subprocess.run(command, env=environment, capture_output=True, cwd=ROOT)
    assert table.returncode == 1, table.stderr
    lines = table.stdout.decode(encoding.partition(":")[0]).splitlines()
    euro = "\u20ac" if encoding.startswith("utf-8") else r"\u20ac"
    wanted = [f"{tmp_path}/{name}" for name in (r"a\udce9.png", f"b{euro}.png", r"c\n\x1b[31m.png")]
    assert [line.split("  ")[0] for line in lines[1:]] == wanted
    assert len({line.index("class") for line in lines[1:]}) == 1
    assert table.stderr.count(b"\n") == 1
    found = subprocess.run([*command, "--json"], env=environment, capture_output=True, cwd=ROOT)
    assert [os.fsencode(json.loads(line)["file"]) for line in found.stdout.splitlines()] == names


def test_a_tilde_in_a_flag_is_the_home_folder(bundle, image_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "b").symlink_to(bundle)
    assert main(["--bundle=~/b", "--local", f"~/{image_file.name}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(image_file)
    assert f"cannot use {tmp_path}/ca.pem for TLS" in refused(
        capsys, "--bundle=~/b", "--server", "localhost:1", "--tls-ca=~/ca.pem", image_file
    )


@pytest.mark.parametrize("moment", ["numpy", "grpc", "ai_edge_litert", "PIL", "bottlefit_jax.errors", "infer"])
def test_ctrl_c_at_any_moment_is_one_line(bundle, server, tail, image_file, moment, tmp_path):
    """While the module of that name is imported, or while the server computes."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
""")
    tail.silences = int(moment == "infer")
    command = [sys.executable, "-m", "bottlefit_jax.edge", "--bundle", bundle, "--server", server, image_file]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with subprocess.Popen(
        [*command, "--deadline-ms", "60000"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while moment == "infer" and not tail.requests and running.poll() is None:
            time.sleep(0.01)
        if moment == "infer":
            running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=50)
    assert (running.returncode, out, err) == (130, "", "stopped by SIGINT\n")


def test_ctrl_c_does_not_end_a_background_job(bundle, server, tail, image_file):
    tail.gate.clear()
    command = [sys.executable, "-m", "bottlefit_jax.edge", "--bundle", bundle, "--server", server, image_file]
    command += ["--deadline-ms", "60000"]
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `command &`
    try:
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, ignored)
    while not tail.requests and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    tail.gate.set()
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out.count("\n"), err) == (0, 2, "")


def test_ctrl_c_keeps_the_lines_that_were_printed(bundle, server, tail, folder):
    def fall_silent(response):
        tail.silences = 1

    (folder / "1a.png").unlink()
    tail.alter = fall_silent
    command = [sys.executable, "-m", "bottlefit_jax.edge", "--bundle", bundle, "--server", server, folder, "--json"]
    command += ["--deadline-ms", "60000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["file"] == str(folder / "0.png")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=50)
    assert (running.returncode, out, err) == (130, "", "stopped by SIGINT\n")


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


def test_a_server_that_is_not_there_yet_is_waited_for(bundle, tail, image_file, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = []
    said = threading.Thread(target=lambda: (time.sleep(1), running.append(serve(tail, port=port)[0])))
    said.start()
    command = ["--bundle", str(bundle), "--server", f"127.0.0.1:{port}", "--deadline-ms", "300", "--wait"]
    assert main([*command, str(image_file)]) in (0, 1)  # 300 ms may be too few for this machine, once it is there
    said.join()
    running[0].stop(0).wait()
    lines = capsys.readouterr().err.splitlines()
    assert re.match(rf"waiting: no answer from 127.0.0.1:{port} within 300 ms", lines[0])
    assert sum(line.startswith("waiting") for line in lines) == 1


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


def test_invalid_arguments_are_one_line_and_code_2(bundle, server, tail, image_file, capsys, tmp_path):
    given = ("--bundle", bundle, "--server", server)
    assert "give --server HOST:PORT, or --local" in refused(capsys, "--bundle", bundle, image_file)
    assert "the bundle has no rates" in refused(capsys, *given, "--local", image_file)
    assert "give images or folders, or --camera 0" in refused(capsys, *given)
    assert "--top 0 is out of range: give 1 to" in refused(capsys, *given, image_file, "--top", "0")
    assert "--deadline-ms nan is out of range" in refused(capsys, *given, image_file, "--deadline-ms", "nan")
    assert "--deadline-ms 1e+300 is out of range" in refused(capsys, *given, image_file, "--deadline-ms", "1e300")
    assert "--frames 100000000000000000000 is out" in refused(capsys, *given, "--camera", "0", "--frames", 10**20)
    assert "invalid int value: 'x'; --help lists the flags" in refused(capsys, *given, image_file, "--threads", "x")
    assert "no file or folder" in refused(capsys, *given, tmp_path / "none.png")
    assert "is not a bundle" in refused(capsys, "--bundle", tmp_path, "--server", server, image_file)
    assert "none cannot be read: No such file" in refused(capsys, *given, image_file, "--token-file", tmp_path / "none")
    assert "no answer from localhost:9 within 300 ms" in refused(
        capsys, "--bundle", bundle, "--server", "localhost:9", "--deadline-ms", "300", image_file
    )
    tail.token = "secret"
    assert "UNAUTHENTICATED" in refused(capsys, *given, image_file)
    (tmp_path / "token").write_text("secret\n")
    assert main([*map(str, given), str(image_file), "--token-file", str(tmp_path / "token")]) == 0
    capsys.readouterr()
    tail.head = "c" * 64
    assert "belongs to another head" in refused(capsys, *given, image_file, "--token-file", tmp_path / "token")


CHILD = """
import sys
from bottlefit_jax.edge.client import EdgeClient
with EdgeClient(sys.argv[1], sys.argv[2], deadline_ms=60_000) as client:
    client.infer(sys.argv[3])
from bottlefit_jax.edge.__main__ import main
from bottlefit_jax.edge.classify import parse
code = main(["--bundle", sys.argv[1], "--server", sys.argv[2], sys.argv[3], "--deadline-ms", "60000"])
heavy = [name for name in ("jax", "tensorflow", "pandas", "cv2", "scipy", "onnx") if name in sys.modules]
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(); print(code, peak // 1024, heavy)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_process_is_small_and_loads_nothing_heavy(bundle, server, image_file):
    command = [sys.executable, "-c", CHILD, str(bundle), server, str(image_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(line.startswith("INFO: ") for line in done.stderr.splitlines())  # LiteRT's, in the program's own part
    code, peak, heavy = done.stdout.splitlines()[-1].split(" ", 2)
    assert (code, heavy) == ("0", "[]")
    assert int(peak) < 120


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
