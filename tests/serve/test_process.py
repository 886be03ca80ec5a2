"""What the command changes in its process: every line on standard error is JSON, and it may open many files."""

import json
import logging
import os
import subprocess
import sys

from bottlefit_jax.serve import process
from tests.serve import example
from tests.serve.test_command import command


def run(code):
    """Run code in a process, and return the lines of its standard error, parsed."""
    words = [sys.executable, "-c", "import os, sys, warnings\nfrom bottlefit_jax.serve import log, process\n" + code]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_what_libraries_write_to_standard_error_is_json():
    lines = run(
        "with process.json_stderr():\n"
        "  os.write(2, b'E0000 00:00:1732593929.123456   4242 ssl.cc:12] Handshake failed\\n\\xff plain\\n')\n"
        "  print('from Python', file=sys.stderr)\n"
        "  log.log('ours', a=1)\n"
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


def test_afterwards_standard_error_is_as_before_and_it_may_be_closed():
    code = "os.close(2)\nwith process.json_stderr():\n  log.log('ours')\n"
    assert run(code) == []
    before, handlers = os.fstat(2), logging.getLogger().handlers[:]
    with process.json_stderr():
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


def test_the_limit_of_open_files_is_raised_to_what_the_system_allows():
    code = (
        "import resource as r; from bottlefit_jax.serve.process import raise_file_limit\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (128, 300)); print(raise_file_limit(), r.getrlimit(r.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "300 (300, 300)"
