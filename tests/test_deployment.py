"""The server in one process and the device in another, with one bundle, on the images of a run."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.edge.client import EdgeClient
from export import ExportOptions, export_bundle
from export.images import read_images
from export.parity import create_reference
from export.student import read_student
from tests.export.finished_run import workdir
from tests.test_main import ROOT

__all__ = ["workdir"]  # a fixture


@pytest.fixture(scope="module", params=["float32", "int8"])
def bundle(request, workdir, tmp_path_factory):
    output = tmp_path_factory.mktemp("bundles") / "digits"
    options = ExportOptions(workdir, output, head=request.param, local=True, images=20, calibration=20)
    return export_bundle(options).bundle.folder


@pytest.fixture
def server(bundle):
    """The address of a server of that bundle."""
    command = [sys.executable, "-m", "bottlefit_jax.serve", "--bundle", bundle, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        line = process.stdout.readline()
        yield "localhost:" + re.search(r":(\d+)\b", line)[1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_the_device_prints_the_classes_that_flax_gives(bundle, workdir, server, tmp_path):
    student = read_student(workdir)
    images = read_images(student, "val", limit=12)
    logits = np.asarray(create_reference(student).whole(images.images))
    for index, image in enumerate(images.images):
        Image.fromarray(image).save(tmp_path / f"{index:02d}.png")
    command = [sys.executable, "-m", "bottlefit_jax.edge", "--bundle", bundle, "--server", server, tmp_path, "--json"]
    command += ["--deadline-ms", "60000", "--rate", "lossless"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == [str(index) for index in logits.argmax(-1)]
    assert all(len(answer["top"]) == 5 for answer in answers)
    warm = [answer["bytes_sent"] for answer in answers[1:]]
    assert max(sent["payload"] for sent in warm) < 75  # bytes of a raw latent
    assert min(sent["total"] - sent["payload"] for sent in warm) <= 200


def test_the_server_and_the_local_network_agree(bundle, workdir, server):
    image = read_images(read_student(workdir), "val", limit=1).images[0]
    with EdgeClient(bundle, server, deadline_ms=60_000, rate="raw") as client:
        there, here = client.infer(image), client.infer_local(image)
    assert there.label == here.label
    assert there.probability == pytest.approx(here.probability, abs=0.05)
    assert there.bytes_sent.payload == 75


def test_the_default_rate_is_what_a_device_sends_without_a_policy(bundle, workdir, server):
    image = read_images(read_student(workdir), "val", limit=1).images[0]
    with EdgeClient(bundle, server, deadline_ms=60_000, policy="fixed") as client:
        default = client.infer(image)
        rates = client.manifest.rates
        assert client.manifest.default_rate in [rate.id for rate in rates]
    with EdgeClient(bundle, server, deadline_ms=60_000, rate=client.manifest.default_rate) as client:
        assert client.infer(image).top == default.top
    assert default.bytes_sent.payload < 75
    assert default.timings.decode is not None


def test_without_a_flag_a_device_sends_the_most_accurate_of_its_rates(bundle, workdir, server):
    image = read_images(read_student(workdir), "val", limit=1).images[0]
    with EdgeClient(bundle, server, deadline_ms=60_000) as client:
        client.infer(image)  # until then the link is a guess
        chosen, rates = client.infer(image).route.path, {rate.id: rate for rate in client.manifest.rates}
    most = max(rate.top1 for rate in rates.values())
    best = [rate for rate in rates.values() if rate.top1 == most]
    assert rates[chosen] == min(best, key=lambda rate: rate.bytes_mean)
