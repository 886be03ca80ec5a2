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
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge import classify
from bottlefit_jax.edge.__main__ import main
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
    message = "--bytes-per-second belongs to --policy auto"
    assert message in refused(capsys, *given, *server, "--rate", "coarse", "--bytes-per-second", "9")
    assert message in refused(capsys, *given, "--local", "--bytes-per-second", "9")
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


def test_invalid_arguments_are_one_line_and_code_2(bundle, server, tail, image_file, capsys, tmp_path):
    given = ("--bundle", bundle, "--server", server)
    assert "give --server HOST:PORT, or --local" in refused(capsys, "--bundle", bundle, image_file)
    assert "the bundle has no rates" in refused(capsys, *given, "--local", image_file)
    assert "give images or folders, or --camera 0" in refused(capsys, *given)
    assert "--top 0 is out of range: give 1 to" in refused(capsys, *given, image_file, "--top", "0")
    assert "--deadline-ms nan is out of range" in refused(capsys, *given, image_file, "--deadline-ms", "nan")
    assert "--deadline-ms 1e+300 is out of range" in refused(capsys, *given, image_file, "--deadline-ms", "1e300")
    assert "--frames 100000000000000000000 is out" in refused(capsys, *given, "--camera", "0", "--frames", 10**20)
    for number in (0, 65, -1):
        error = refused(capsys, *given, "--camera", "0", "--in-flight", number)
        assert f"--in-flight {number} is out of range: give 1 to 64" in error
    assert "invalid int value: '8.5'" in refused(capsys, *given, "--camera", "0", "--in-flight", "8.5")
    values = {"--in-flight": 4, "--frames": 9, "--camera-rate": 5, "--camera-size": "8x8", "--health": "health.json"}
    for flag, value in values.items():
        assert f"{flag} goes with --camera SOURCE only" in refused(capsys, *given, image_file, flag, value)
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
from bottlefit_jax.edge import classify
from bottlefit_jax.edge.__main__ import main
from bottlefit_jax.errors import Unavailable
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


class Slow:
    """A client whose server answers at the given attempt; each takes a tenth of a second of the test's clock."""

    def __init__(self, answers_at):
        self.attempts, self.answers_at, self.now = 0, answers_at, 100.0

    def monotonic(self):
        return self.now

    def connect(self):
        self.attempts, self.now = self.attempts + 1, self.now + 0.1
        if self.attempts < self.answers_at:
            raise Unavailable("no answer within 100 ms")


def test_a_deadline_that_is_too_short_to_connect_in_does_not_end_the_command_at_once(monkeypatch):
    client = Slow(answers_at=8)
    monkeypatch.setattr(classify, "time", client)
    classify.connect(client, classify.CONNECT_SECONDS)
    assert client.attempts == 8
    client = Slow(answers_at=99)
    monkeypatch.setattr(classify, "time", client)
    with pytest.raises(Unavailable):
        classify.connect(client, classify.CONNECT_SECONDS)
    assert client.now == pytest.approx(100 + classify.CONNECT_SECONDS, abs=0.2)
