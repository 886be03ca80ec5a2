"""What each extra brings along, by a resolution of the package index that installs nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["edge", "export", "serve", "train"])
def test_no_tensorflow_anywhere_and_no_jax_on_the_device(extra, tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    subprocess.run([*command, f"--report={report}", f"{ROOT}[{extra}]"], check=True, timeout=600)
    brought = {
        re.sub("[-_.]+", "-", item["metadata"]["name"]).lower() for item in json.loads(report.read_text())["install"]
    }
    assert "numpy" in brought
    assert not {"tensorflow", "tensorflow-cpu", "tf-keras"} & brought
    if extra in ("edge", "serve"):
        assert not {"jax", "jaxlib", "flax"} & brought
