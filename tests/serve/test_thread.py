"""The server inside another program."""

import ast
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from bottlefit_jax.errors import UserError
from bottlefit_jax.serve import ServerOptions, serve_in_thread
from tests.serve import example
from tests.serve.example import latents, status_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bundle(tmp_path):
    return example.write(tmp_path / "bundle")


def infer(address):
    latent = latents()
    tensor = triton.InferInput("latent", latent.shape, "UINT8")
    tensor.set_data_from_numpy(latent)
    with triton.InferenceServerClient(address) as client:
        logits = client.infer("digits", [tensor]).as_numpy("logits")
    np.testing.assert_allclose(logits, example.expected(latent), rtol=1e-5, atol=1e-2)


def test_a_program_starts_calls_and_stops_a_server(bundle):
    with serve_in_thread(ServerOptions(bundles=[str(bundle)], metrics_port=0, repository_port=0)) as server:
        assert server.models == ["digits:3"]
        assert server.address == f"127.0.0.1:{server.port}"
        assert 0 not in (server.port, server.metrics_port, server.repository_port)
        infer(server.address)
    with example.channel_to(server.address) as channel:
        code, _ = status_of(example.raw_method(channel, "ServerLive"), b"")
    assert code == grpc.StatusCode.UNAVAILABLE


def test_two_servers_run_beside_each_other(bundle):
    with example.serving(bundle) as first:
        with example.serving(bundle) as second:
            infer(first.address)
            infer(second.address)
        infer(first.address)


def test_the_server_stops_when_the_block_raises(bundle):
    with pytest.raises(ZeroDivisionError), example.serving(bundle) as server:
        raise ZeroDivisionError
    with example.serving(bundle, port=server.port):  # its port is free again
        infer(server.address)


def test_a_program_with_an_event_loop_awaits_the_server(bundle):
    """In a process of its own, as gRPC expects one event loop in a process."""
    code = f"""
import asyncio
from bottlefit_jax.serve import Server, ServerOptions
from tests.serve.test_thread import infer

async def main():
    server = await Server.start(ServerOptions(bundles=[{str(bundle)!r}]))
    try:
        await asyncio.to_thread(infer, server.address)
    finally:
        await server.stop()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("changes", [{"max_batch": 0}, {"tls_cert": "none", "tls_key": "none"}, {"bundles": ["none"]}])
def test_a_server_that_does_not_start_leaves_nothing_running(bundle, changes):
    threads = {thread for thread in threading.enumerate() if thread.name == "tail"}
    with pytest.raises(UserError), serve_in_thread(ServerOptions(**{"bundles": [bundle], **changes})):
        pass
    with (
        example.serving(bundle) as server,
        pytest.raises(UserError, match="the port is taken"),
        example.serving(bundle, port=server.port),
    ):
        pass
    assert {thread for thread in threading.enumerate() if thread.name == "tail"} == threads


def test_the_program_keeps_its_descriptors_logging_and_signals(bundle):
    def state():
        root = logging.getLogger()
        handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
        descriptors = [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)]
        return handlers, descriptors, root.handlers[:], root.level, serve_logger.level, logging.raiseExceptions

    serve_logger = logging.getLogger("bottlefit_jax.serve")
    before = state()
    with example.serving(bundle) as server:
        infer(server.address)
        assert state() == before
    assert state() == before


def test_only_the_command_changes_its_process():
    importing = set()
    for path in (ROOT / "bottlefit_jax" / "serve").glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            if {"signal", "resource", "bottlefit_jax.serve.process"} & set(names):
                importing.add(path.name)
    assert importing == {"__main__.py", "process.py"}
