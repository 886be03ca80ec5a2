"""What the README promises: its code runs, its files are there, and the demo reaches its figures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_image_of_the_demo_says_how_many_channels_it_shows():
    (shown,) = re.findall(
        r"!\[[^]]*beside each the (\w+) channels that are sent\]\(docs/images/digits_latents.png\)", README
    )
    (channels,) = re.findall(r"channels=(\d+)", (ROOT / "configs" / "digits.py").read_text())
    assert {"three": 3, "four": 4, "six": 6}[shown] == int(channels)


@pytest.mark.slow
def test_its_code_runs_and_prints_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == re.search(r"print\(.*\)  # (\(.*?\)):", code).group(1)


@pytest.mark.slow
def test_the_demo_reaches_its_figures(demo):
    trained = demo()
    assert (trained.code, trained.err) == (0, ""), trained.err
    report = json.loads((trained.workdir / "report.json").read_text())
    assert report["teacher"]["top1"] >= 98.5
    assert report["student"]["top1_drop_points"] <= 0.6
    assert report["student"]["bits"] == 8
    assert report["bytes_per_image"]["saving_percent"] >= 77.1
    rows = {(row["method"], row["setting"]): row for row in report["alternatives"]}
    student = rows["student", "3 channels"]
    assert student["bytes"] < min(row["bytes"] for row in rows.values() if row["method"] in ("jpeg", "webp"))
    assert student["device_macs"] < rows["local", ""]["device_macs"] / 7
