"""What each extra installs, by a dry run of pip."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["edge", "export", "serve", "train"])
def test_no_extra_installs_tensorflow_and_the_devices_no_jax(extra, tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    subprocess.run([*command, f"--report={report}", f"{ROOT}[{extra}]"], check=True, timeout=600)
    packages = {
        re.sub("[-_.]+", "-", item["metadata"]["name"]).lower() for item in json.loads(report.read_text())["install"]
    }
    assert "numpy" in packages
    assert not {"tensorflow", "tensorflow-cpu", "tf-keras"} & packages
    if extra in ("edge", "serve"):
        assert not {"jax", "jaxlib", "flax"} & packages
