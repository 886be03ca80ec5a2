"""The authority, the certificates and the token of the guide, with a server and a device that use them."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request

import pytest

from bottlefit_jax.edge.__main__ import main as classify
from bottlefit_jax.serve.load import main as load
from tests.operations import ROOT, block, commands, write

FILES = block("openssl req -x509")
RUN = block("--tls-client-ca ca.pem")


def make_files(folder):
    """Run the guide's commands in `folder`, for a server on this machine."""
    script = FILES.replace("SERVER=edge-server.example", "SERVER=localhost")
    assert script != FILES
    done = subprocess.run(["bash", "-e", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def serving(folder):
    """The guide's server, on free ports of this machine; yields {what: port}."""
    (words,) = commands("bottlefit_jax.serve", of=RUN)
    words = [re.sub(r"^(8001|8002|9090)$", "0", word).replace("0.0.0.0", "127.0.0.1") for word in words]
    command = [sys.executable, "-m", "bottlefit_jax.serve", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=environment
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "(mutual TLS, token): digits:1" in line, (folder / "log").read_text()
            ports = re.findall(r"(listening|loading|metrics) on (?:http://)?127\.0\.0\.1:(\d+)", line)
            yield dict(ports)
        finally:
            process.terminate()


def as_device(ports):
    """The guide's device, at that server."""
    (words,) = commands("bottlefit_jax.edge", of=RUN)
    return [word.replace("edge-server.example:8001", f"localhost:{ports['listening']}") for word in words]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_they_work_and_new_ones_are_read_at_the_next_start(bundle, bundles, image_file, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path)
    patience = ["--deadline-ms", "60000"]
    with serving(tmp_path) as ports:
        assert classify([*as_device(ports), *patience]) == 0
        assert re.search(r"image\.png +class \d", capfd.readouterr().out)
        url = f"http://127.0.0.1:{ports['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=60) as response:
            assert 'certificate_expiry_timestamp_seconds{file="tls-client-ca"}' in response.read().decode()

        write(bundles / "digits-2", bundle, version=2)
        listing, loading = commands("bottlefit_jax.serve.load", of=block("--rates-from"))
        for words, second in ((listing, "UNAVAILABLE"), (loading, "READY")):
            assert load([word.replace("8002", ports["loading"]) for word in words]) == 0
            assert capfd.readouterr().out.split() == ["digits:1", "READY", "digits:2", second]

        before = tmp_path / "before"
        before.mkdir()
        for path in [*tmp_path.glob("*.pem"), *tmp_path.glob("*.key"), tmp_path / "token"]:
            shutil.copy(path, before)
        make_files(tmp_path)
        assert classify([*as_device(ports), *patience]) == 2
        assert "its certificate cannot be trusted" in capfd.readouterr().err
        monkeypatch.chdir(before)
        old = [f"../{word}" if word in ("bundles/digits-1", "image.png") else word for word in as_device(ports)]
        assert classify([*old, *patience]) == 0
        capfd.readouterr()
