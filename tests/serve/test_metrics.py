"""What the metrics say beside the counts of requests, which tests/serve/test_methods.py has."""

import re
import sys
import urllib.request

import pytest

from bottlefit_jax import __version__
from bottlefit_jax.serve.load import main
from tests.bundle.example import HEAD, TAIL
from tests.serve import example


def metrics_of(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=60) as response:
        return response.read().decode()


def loaded(server):
    """{(model, version, head, tail)} of a server's metrics."""
    pattern = r'^bottlefit_model_info\{head="(.*)",model="(.*)",tail="(.*)",version="(.*)"\} 1.0$'
    found = re.findall(pattern, metrics_of(server), re.MULTILINE)
    return {(model, version, head, tail) for head, model, tail, version in found}


def test_they_name_the_models_that_are_loaded_now(tmp_path, capsys):
    example.write(tmp_path / "1", version=1)
    with example.serving(parents=[tmp_path], metrics_port=0, repository_port=0) as server:
        port = f"127.0.0.1:{server.repository_port}"
        assert loaded(server) == {("digits", "1", HEAD, TAIL)}
        example.write(tmp_path / "2", version=2)
        assert main(["--server", port, "digits"]) == 0
        assert loaded(server) == {("digits", "1", HEAD, TAIL), ("digits", "2", HEAD, TAIL)}
        assert main(["--server", port, "--unload", "digits"]) == 0
        assert loaded(server) == set()
    capsys.readouterr()


def test_a_busy_server_is_busy_for_as_long_as_its_batches_take(tmp_path):
    options = {"metrics_port": 0}
    with example.serving(example.write(tmp_path / "a"), **options) as server, example.channel_to(server.address) as to:
        infer = example.raw_method(to, "ModelInfer")
        for seed in range(5):
            infer(example.infer_request(example.latents(seed=seed)).SerializeToString(), timeout=60)
        example.until(lambda: 'bottlefit_batch_size_count{model="digits",version="3"} 5.0' in metrics_of(server))
        text = metrics_of(server)
    busy, tail = (
        float(re.search(rf'^bottlefit_{name}{{model="digits",version="3"}} (.*)$', text, re.MULTILINE)[1])
        for name in ("busy_seconds_total", "tail_seconds_sum")
    )
    assert busy > tail - 5e-6 > 0  # each request was a batch of its own, whose microseconds are rounded


@pytest.mark.skipif(sys.platform != "linux", reason="the process is read from Linux' /proc")
def test_they_have_the_version_and_the_open_files(tmp_path):
    with example.serving(example.write(tmp_path / "a"), metrics_port=0) as server:
        text = metrics_of(server)
        assert f'bottlefit_build_info{{version="{__version__}"}} 1.0' in text
        values = [
            float(re.search(rf"^process_{name} (\S+)$", text, re.MULTILINE)[1]) for name in ("open_fds", "max_fds")
        ]
        assert 3 < values[0] < values[1]
