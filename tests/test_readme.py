"""What the README promises: its code runs, its files are there, and the demo reaches its figures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_main import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_file_and_command_it_names_is_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
    for config in re.findall(r"--config=(\S+?\.py)", README):
        assert (ROOT / config).exists(), config
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert f"\n{target}: " in (ROOT / "Makefile").read_text(), target
    for module in re.findall(r"python -m (bottlefit_jax[\w.]*)", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.slow
def test_its_code_runs_and_prints_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == re.search(r"print\(.*\)  # (\(.*?\)):", code).group(1)


@pytest.mark.slow
def test_the_demo_reaches_its_figures(tmp_path):
    code, _, err = run(f"--workdir={tmp_path / 'run'}")
    assert (code, err) == (0, ""), err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["teacher"]["top1"] >= 98.5
    assert report["student"]["top1_drop_points"] <= 0.6
    assert report["student"]["bits"] == 8
    assert report["bytes_per_image"]["saving_percent"] >= 77.1
