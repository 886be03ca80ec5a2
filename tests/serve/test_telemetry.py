"""Every line of the log is JSON, and which calls have one."""

import json
import logging
import os
import subprocess
import sys

import pytest

from bottlefit_jax.serve import telemetry
from bottlefit_jax.serve.__main__ import main
from tests.serve import example
from tests.serve.test_command import command


def run(code):
    """The lines that a process with a JSON log writes to standard error, parsed."""
    words = [sys.executable, "-c", "import os, sys, warnings\nfrom bottlefit_jax.serve import telemetry\n" + code]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_what_libraries_write_to_standard_error_is_json():
    lines = run(
        "with telemetry.all_json():\n"
        "  os.write(2, b'E0000 00:00:1732593929.123456   4242 ssl.cc:12] Handshake failed\\n\\xff plain\\n')\n"
        "  print('from Python', file=sys.stderr)\n"
        "  telemetry.log('ours', a=1)\n"
        "  os.write(2, b'no end')\n"
    )
    assert sorted(line["event"] for line in lines) == [
        "Handshake failed",
        "\\xff plain",
        "from Python",
        "no end",
        "ours",
    ]
    core = next(line for line in lines if line["event"] == "Handshake failed")
    assert (core["level"], core["logger"], core["source"]) == ("error", "grpc", "ssl.cc:12")


def test_standard_error_is_as_before_after_it_and_may_be_closed():
    code = "os.close(2)\nwith telemetry.all_json():\n  telemetry.log('ours')\n"
    assert run(code) == []
    before, handlers = os.fstat(2), logging.getLogger().handlers[:]
    with telemetry.all_json():
        assert os.fstat(2) != before
    assert os.fstat(2) == before
    assert logging.getLogger().handlers == handlers


def test_what_grpc_writes_is_json(tmp_path, monkeypatch):
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    with (
        command("--bundle", example.write(tmp_path / "a"), "--port", 0) as (process, address),
        example.channel_to(address) as channel,
    ):
        data = example.infer_request(example.latents(), id="mine").SerializeToString()
        example.raw_method(channel, "ModelInfer")(data, timeout=60)
        process.terminate()
        _, log = process.communicate(timeout=60)
    lines = [json.loads(line) for line in log.splitlines()]
    assert any(line.get("logger") == "grpc" for line in lines)
    assert any(line.get("request") == "mine" for line in lines)
    assert [line["event"] for line in lines if line["event"] in ("started", "stopped")] == ["started", "stopped"]


@pytest.mark.parametrize(("one_in", "lines"), [(1, 10), (3, 4), (0, 0)])
def test_calls_are_sampled_by_method_and_status(one_in, lines):
    log = telemetry.CallLog(one_in)
    assert sum(log.takes("ModelInfer", "OK") for _ in range(10)) == lines
    assert log.takes("ModelInfer", "INTERNAL") == (one_in > 0)
    assert log.takes("ModelConfig", "OK") == (one_in > 0)


def test_a_server_logs_one_line_for_so_many_calls(tmp_path, caplog):
    bundle = example.write(tmp_path / "a")
    with (
        caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"),
        example.serving("--bundle", bundle, "--log-calls", "4") as running,
        example.channel_to(running.address) as channel,
    ):
        method = example.raw_method(channel, "ModelInfer")
        for number in range(9):
            method(example.infer_request(example.latents(), id=f"{number}").SerializeToString(), timeout=60)
    calls = [record.fields["request"] for record in caplog.records if record.getMessage() == "call"]
    assert calls == ["0", "4", "8"]


def test_a_number_of_calls_below_0_is_one_line(capsys):
    assert main(["--port", "0", "--bundle", "a", "--log-calls", "-1"]) == 2
    assert "--log-calls is -1; it must be 0 to 1,000,000" in capsys.readouterr().err
