"""The device on Python 3.10, which JetPack 6 and Ubuntu 22.04 have: installed by the pip of that Python, and run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax.bundle import read_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Python 3.10 with the extra [edge]."""
    found = shutil.which("python3.10")
    if found is None or subprocess.run([found, "-c", "import venv"], check=False).returncode:
        pytest.skip("there is no python3.10 here")
    folder = tmp_path_factory.mktemp("python310")
    source = folder / "source"  # pip leaves a folder `build` behind
    for name in ("bottlefit_jax", "export"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([found, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{source}[edge]"], check=True, timeout=600)
    return python


@pytest.mark.slow
def test_the_device_gives_the_same_there(python, rated, server, tail, image_file, tmp_path):
    tail.rates = read_bundle(rated).read_rates()
    words = ["-m", "bottlefit_jax.edge", "--bundle", rated, "--server", server, "--json", "--deadline-ms", "60000"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    lines = [
        subprocess.run([program, *words, image_file], cwd=tmp_path, env=environment, capture_output=True, text=True)
        for program in (python, sys.executable)
    ]
    assert [line.stderr for line in lines] == ["", ""]
    here, there = (json.loads(line.stdout) for line in lines)
    assert {key: here[key] for key in ("label", "index", "top")} == {
        key: there[key] for key in ("label", "index", "top")
    }
    assert here["bytes_sent"]["payload"] == there["bytes_sent"]["payload"]


@pytest.mark.slow
def test_every_file_of_the_device_can_be_imported_there(python, tmp_path):
    program = (
        "import importlib, pkgutil\n"
        "for room in ('bundle', 'cli', 'codec', 'edge', 'images', 'protocol'):\n"
        "    package = importlib.import_module(f'bottlefit_jax.{room}')\n"
        "    for module in pkgutil.iter_modules(package.__path__):\n"
        "        if module.name != '__main__' and (room, module.name) not in LEFT_OUT:\n"
        "            importlib.import_module(f'bottlefit_jax.{room}.{module.name}')\n"
    )
    left_out = "LEFT_OUT = {('cli', 'config_file'), ('cli', 'config_command')}\n"  # of the training commands
    subprocess.run([python, "-c", left_out + program], cwd=tmp_path, check=True)
