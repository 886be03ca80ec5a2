"""The command as a process: its line, its signals, its errors."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import grpc
import pytest

from bottlefit_jax.serve.__main__ import main
from tests.serve import example
from tests.serve.example import infer_request, latents, status_of


@pytest.fixture
def bundle(tmp_path):
    return example.write(tmp_path / "bundle")


@contextlib.contextmanager
def command(*flags):
    """Yield the running process and its address."""
    words = [sys.executable, "-W", "error", "-m", "bottlefit_jax.serve", *map(str, flags)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), process.communicate()
            yield process, line.split()[2]
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0_after_what_it_took(bundle, signum):
    with command("--bundle", bundle, "--port", 0) as (process, address), example.channel_to(address) as channel:
        method = example.raw_method(channel, "ModelInfer")
        data = infer_request(latents(), id="last").SerializeToString()
        method(data, timeout=60)
        calls = [method.future(data, timeout=60) for _ in range(20)]
        process.send_signal(signum)
        codes = {call.code() for call in calls}
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0
        lines = [json.loads(line) for line in log.splitlines()]
        assert [line["event"] for line in lines if line["event"] not in ("call", "tail opened")] == [
            "started",
            "stopping",
            "stopped",
        ]
        assert any(line.get("request") == "last" and line["status"] == "OK" for line in lines)


def test_a_killed_server_is_a_status_for_its_clients_and_its_port_is_free_again(bundle):
    with command("--bundle", bundle, "--port", 0) as (process, address), example.channel_to(address) as channel:
        method = example.raw_method(channel, "ModelInfer")
        data = infer_request(latents()).SerializeToString()
        codes, end = {status_of(method, data)[0]}, time.monotonic() + 60
        threading.Timer(0.1, process.kill).start()
        while grpc.StatusCode.UNAVAILABLE not in codes and time.monotonic() < end:
            codes.add(status_of(method, data)[0])
        assert codes == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        with command("--bundle", bundle, "--port", address.rpartition(":")[2]):
            assert status_of(method, data, wait_for_ready=True)[0] == grpc.StatusCode.OK


def test_a_port_that_is_taken_is_one_line(bundle, capsys):
    with example.serving(bundle) as running:
        assert main(["--bundle", str(bundle), "--port", str(running.port)]) == 2
        assert f"cannot listen on 127.0.0.1:{running.port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--port"),
        (["--port", "1"], "--bundle is missing"),
        (["--port", "x", "--bundle", "a"], "argument --port: invalid int value: 'x'"),
        (["--port", "0", "--bundle", "nowhere"], "no folder"),
        (["--port", "0", "--bundles", "nowhere"], "no folder nowhere"),
        (
            ["--port", "0", "--bundle", "a", "--repository-port", "-1"],
            "--repository-port is -1; it must be 0 to 65,535",
        ),
        (["--port", "0", "--bundle", "a", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["--port", "70000", "--bundle", "a"], "--port is 70000; it must be 0 to 65,535"),
        (["--port", "0", "--bundle", "a", "--queue", "0"], "--queue is 0; it must be 1 to 1,000,000"),
        (["--port", "0", "--bundle", "a", "--batch-delay-ms", "nan"], "--batch-delay-ms is nan"),
        (["--port", "0", "--bundle", "a", "--tls-cert", "b"], "--tls-cert and --tls-key go together"),
        (["--port", "0", "--bundle", "a", "--tls-client-ca", "b"], "--tls-client-ca needs"),
        (["--port", "0", "--bundle", "a", "--token", "b"], "--token"),
    ],
)
def test_mistakes_are_one_line_and_code_2(flags, message, capsys):
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_damaged_bundle_is_one_line(bundle, capsys):
    path = bundle / "tail.onnx"
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    assert main(["--bundle", str(bundle), "--port", "0"]) == 2
    assert "tail.onnx was changed or damaged" in capsys.readouterr().err


def test_the_line_and_the_log_say_what_is_left_out(tmp_path):
    example.write(tmp_path / "digits")
    damaged = example.write(tmp_path / "torn", name="torn")
    (damaged / "tail.onnx").write_bytes(b"torn")
    example.write(tmp_path / ".copy")
    with command("--bundles", tmp_path, "--port", 0, "--metrics-port", 0) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    lines = [json.loads(line) for line in log.splitlines()]
    reasons = {line["folder"]: line["reason"] for line in lines if line["event"] == "left out"}
    assert reasons.keys() == {str(damaged), str(tmp_path / ".copy")}
    assert "tail.onnx has 4 bytes instead of" in reasons[str(damaged)]


def test_folders_that_are_left_out_are_counted_and_on_the_line(tmp_path):
    example.write(tmp_path / "digits")
    example.write(tmp_path / ".copy")
    with example.serving(parents=[tmp_path], metrics_port=0) as running:
        assert "digits:3; 1 left out, the log says why: .copy; metrics on" in running.line
        with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/metrics", timeout=60) as response:
            assert "bottlefit_bundles_left_out 1.0" in response.read().decode()


def test_the_log_level_leaves_out_what_is_below_it(bundle):
    with (
        command("--bundle", bundle, "--port", 0, "--log-level", "warning") as (process, address),
        example.channel_to(address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        method(infer_request(latents(), id="good").SerializeToString(), timeout=60)
        status_of(method, infer_request(latents(), name="nope").SerializeToString())
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    lines = [json.loads(line) for line in log.splitlines()]
    assert [(line["level"], line["status"]) for line in lines] == [("warning", "NOT_FOUND")]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("serve", "grpc_health"),
        ("serve", "grpc_reflection"),
        ("serve", "prometheus_client"),
        ("serve.load", "tritonclient"),
    ],
)
def test_a_missing_package_of_the_extra_is_one_line(command, missing):
    flags = {"serve": ["--bundle", "a", "--port", "0"], "serve.load": ["--server", "localhost:1"]}[command]
    code = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {flags!r}\n"
        f"runpy.run_module('bottlefit_jax.{command}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    expected = rf"error: {missing}[.\w]* is not installed for .*\[serve\]'.*\n"
    assert re.fullmatch(expected, done.stderr), done.stderr
