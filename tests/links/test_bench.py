"""The measurement as a process, with its two servers."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.links.proxy import ProcessLink
from bottlefit_jax.links.servers import edge_server, jpeg_server
from tests.serve import example


@pytest.fixture
def bundle(tmp_path, models):
    return example.write(tmp_path / "bundle", files=models, local={"litert": "local.tflite", "top1": 74.8})


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@contextlib.contextmanager
def started(bundle, images, output, *flags):
    """The running process; its progress is on stderr."""
    words = ["-m", "bottlefit_jax.links.bench", "--bundle", bundle, "--images", images, "--output", output]
    with subprocess.Popen(
        [sys.executable, *map(str, [*words, "--shaper", "process", *flags])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def servers(process):
    """The ids of its two servers, by a part of their command."""
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    words = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return {name: pid for pid, line in words.items() for name in ("bottlefit_jax.serve", "jpeg_server") if name in line}


def read(output):
    return json.loads((output / "bench.json").read_text())


def until(process, word):
    """Reads its progress up to a line with `word`."""
    for line in process.stderr:
        if word in line:
            return line
    pytest.fail(f"no {word}")


def test_a_measurement_has_every_row_and_all_three_files(bundle, images, tmp_path):
    output = tmp_path / "a folder" / "out"
    flags = ["--rates", "5,50", "--delays", "2", "--count", "5", "--watts-compute", 6, "--watts-send", 4]
    with started(bundle, images, output, *flags, "--watts-idle", 2) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == f"wrote {output / 'bench.md'}\n"
    report = read(output)
    assert [(row["rate_mbit"], row["method"], row["error"]) for row in report["rows"]] == [
        (rate, method, None) for rate in (5, 50) for method in ("split", "local", "jpeg")
    ]
    for row in report["rows"]:
        total, network = row["ms"]["total"]["p50"], row["ms"].get("network", {"p50": 0})["p50"]
        assert row["images"] == 5
        assert total >= network
        assert row["energy_mj"] > 0
        assert (network > 2 * 2) == (row["method"] != "local")
        assert (row["bytes_sent"] > row["payload"]) == (row["method"] != "local")
    assert report["rows"][0]["payload"] == np.prod(example.SHAPE)
    assert (output / "latency.png").exists()
    assert "nothing was measured: time x the stated 6 W computing" in (output / "bench.md").read_text()


def test_a_bundle_without_a_local_network_says_how_to_get_one(tmp_path, models, images):
    bundle = example.write(tmp_path / "bundle", files={"head.tflite": models["head.tflite"]})
    with started(bundle, images, tmp_path, "--rates", 50, "--delays", 0, "--count", 1) as process:
        assert process.wait(60) == 0
        process.stdout.read()
    row = next(row for row in read(tmp_path)["rows"] if row["method"] == "local")
    assert row["error"].endswith("export it with --local")
    assert "export it with --local" in (tmp_path / "bench.md").read_text()


def test_a_server_that_cannot_start_is_one_line(tmp_path, models, images):
    bundle = example.write(
        tmp_path / "bundle", files={**models, "tail.onnx": b"no tail"}, local={"litert": "local.tflite", "top1": 74.8}
    )
    with started(bundle, images, tmp_path) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: the edge server did not start: it ended with exit code 2")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), [("bottlefit_jax.serve", "split"), ("jpeg_server", "jpeg")])
def test_a_killed_server_is_a_row_that_says_so_and_the_next_link_goes_on(bundle, images, tmp_path, name, method):
    flags = ["--rates", "20,21,22", "--delays", 10, "--count", 60, "--deadline-ms", 1500]
    with started(bundle, images, tmp_path, *flags) as process:
        until(process, "20 Mbit/s, jpeg" if method == "split" else "21 Mbit/s, split")
        time.sleep(0.5)
        os.kill(servers(process)[name], signal.SIGKILL)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "is started again" in err
    rows = {(row["rate_mbit"], row["method"]): row for row in read(tmp_path)["rows"]}
    assert "ended with signal 9" in rows[21, method]["error"]
    assert 0 < rows[21, method]["images"] < 60
    assert [rows[rate, method]["error"] for rate in (20, 22)] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_measurement_reports_and_leaves_nothing_running(bundle, images, tmp_path, signum):
    with started(bundle, images, tmp_path, "--rates", "1,20", "--delays", 10, "--count", 100) as process:
        until(process, "split")
        children = servers(process)
        assert len(children) == 2
        process.send_signal(signum)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in children.values())
    errors = [row["error"] for row in read(tmp_path)["rows"]]
    assert errors[0] is None
    assert errors[-1] == "interrupted"
    assert "interrupted" in (tmp_path / "bench.md").read_text()


def test_servers_elsewhere_are_measured_over_the_link_as_it_is(bundle, images, tmp_path):
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(ProcessLink())
        tail = stack.enter_context(edge_server(bundle, link))
        whole = stack.enter_context(jpeg_server(bundle, link, tail))
        addresses = [f"127.0.0.1:{server.port}" for server in (tail, whole)]
        (tmp_path / "device").mkdir()
        for name in ("manifest.json", "head.tflite", "local.tflite"):
            shutil.copy(bundle / name, tmp_path / "device")
        words = ["-m", "bottlefit_jax.links.bench", "--bundle", tmp_path / "device", "--images", images]
        words += ["--output", tmp_path / "out", "--count", 20, "--server", addresses[0]]
        command = [sys.executable, *map(str, words)]
        both = subprocess.run([*command, "--jpeg-server", addresses[1]], capture_output=True, text=True)
        again = subprocess.run(command, capture_output=True, text=True)
        alone = subprocess.run([*command, "--overwrite"], capture_output=True, text=True)
    assert both.returncode == 0, both.stderr
    assert "jpeg: " in both.stderr
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "already holds bench.json" in again.stderr
    assert alone.returncode == 0, alone.stderr
    report = read(tmp_path / "out")
    rows = {row["method"]: row for row in report["rows"]}
    assert [rows[name]["images"] for name in ("split", "local", "jpeg")] == [20, 20, 0]
    assert "python -m bottlefit_jax.links.jpeg_server" in rows["jpeg"]["error"]
    assert (report["link"], rows["split"]["rate_mbit"], rows["split"]["bytes_sent"]) == ("direct", None, None)
    assert not (tmp_path / "out" / "latency.png").exists()
    assert "as fast as the server" not in (tmp_path / "out" / "bench.md").read_text()
