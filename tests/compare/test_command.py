"""The command: mistakes in one line, a table at the end, and resuming after a stop."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax import lock
from tests import signalled

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config=configs/digits.py",
    "--config.student.bottleneck.channels=6",
    "--config.stages.teacher.epochs=1",
    "--config.stages.stage1.epochs=1",
    "--config.stages.stage2.epochs=1",
    "--config.dataset.workers=0",
    "--seeds=0",
)


def start(*arguments):
    command = [sys.executable, "-m", "bottlefit_jax.compare", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods=magic"], "--methods has 'magic'; the methods are local, jpeg, webp"),
        (["--seeds=one"], "--seeds is 'one'"),
        (["--config.student.weights=here"], "config.student.weights is set"),
        (["--config.stages.stage1.epochs=-1"], "must be at least 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    code, _, err = run("--config=configs/digits.py", f"--workdir={tmp_path}", *arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("error: ")
    assert message in err


def test_help_lists_the_commands_own_flags():
    code, out, _ = run("--help")
    assert code == 0
    words = " ".join(out.split())
    assert "--methods NAME,... the methods to compare;" in words
    assert "(default: local, jpeg, webp, vanilla" in words
    assert "(default: 1)" in words


def test_a_training_of_another_process_is_refused_before_anything_runs(tmp_path):
    with lock.hold(tmp_path / "compare" / ".bottlefit-6ch-seed0.lock", "it"):
        code, out, err = run(*SMALL, f"--workdir={tmp_path}", "--methods=bottlefit")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: bottlefit-6ch-seed0 in {tmp_path} is in use by process {os.getpid()} on ")
    assert err.endswith("or choose other --methods, --seeds or --channels\n")


@pytest.mark.slow
def test_two_processes_with_different_methods_share_a_workdir(tmp_path):
    processes = [start(*SMALL, f"--workdir={tmp_path}", f"--methods=jpeg,{name}") for name in ("bottlefit", "kd")]
    for process in processes:
        _, err = process.communicate(timeout=900)
        assert (process.returncode, err) == (0, "")
    found = {path.stem for path in (tmp_path / "compare" / "results").iterdir() if "seed" in path.stem}
    assert found == {"bottlefit-6ch-seed0", "kd-6ch-seed0"}
    assert not list((tmp_path / "compare").glob(".*.lock"))


TRAINED = "jpeg,bottlefit-patch,bottlefit-patch-rate,entropic,spinn"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The workdir and the output of a comparison on the digits, whose images are too small for one method."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, run(*SMALL, f"--workdir={workdir}", f"--methods={TRAINED},autoencoder")


@pytest.mark.slow
def test_the_table_has_every_method_and_the_reason_of_a_failure(compared):
    workdir, (code, out, err) = compared
    assert (code, err) == (1, "")
    assert "rows failed, first autoencoder: images of 32 × 32 are too small" in out
    comparison = json.loads((workdir / "compare.json").read_text())
    rows = {(row["method"], row["setting"].split(",")[0]): row for row in comparison["rows"]}
    assert len([row for row in comparison["rows"] if row["method"] == "bottlefit-patch"]) >= 2
    patch = rows["bottlefit-patch", "6 channels"]
    assert 10 < patch["bytes"]["mean"] < 5 * 5 * 6
    assert patch["ms"]["device"] > 0
    assert patch["ms"]["server"] > 0
    assert patch["top1"]["mean"] > 20
    assert rows["jpeg", "quality 95"]["bytes"]["mean"] == pytest.approx(comparison["jpeg95_bytes"])
    assert rows["autoencoder", "6 channels"]["error"]
    assert rows["spinn", "no exit"]["bytes"]["mean"] > rows["spinn", "threshold 0.5"]["bytes"]["mean"]
    assert comparison["teacher"]["top1"] == rows["local", ""]["top1"]["mean"]
    entropic, rate = rows["entropic", "24 channels"], rows["bottlefit-patch-rate", "6 channels"]
    assert (entropic["macs"], rate["macs"]) == (11_948_544, patch["macs"])
    assert entropic["ms"]["device"] > patch["ms"]["device"]
    curves = {curve["method"]: curve for curve in comparison["curves"]}
    student = json.loads((workdir / "compare/runs/bottlefit-patch-rate-6ch-seed0/report.json").read_text())
    rates = sorted((rate["bytes_mean"], rate["top1"]) for rate in student["rates"] if rate["id"] != "raw")
    assert {tuple(point) for point in curves["bottlefit-patch-rate"]["seeds"][0]["points"]} <= set(rates)
    headings = [group["heading"].split(",")[0] for group in comparison["same_bytes"]["groups"]]
    assert headings == [*["an encoder of its own"] * 2, "the teacher up to the cut", "images sent as files"]
    text = (workdir / "compare.md").read_text()
    assert "![" in text
    assert "## Accuracy at the same bytes" in text
    assert "The rate term has weight 0.3 and, where a method has none of its own, steps 1: as" in text
    assert "added to its top-1: unknown." in text  # one epoch has no fifth
    assert "failed: images of 32 × 32" in text
    assert "Every student was trained for 2 epochs, in one stage or two; the teacher had 1." in text
    assert (workdir / "compare_rate_accuracy.png").stat().st_size > 10_000
    assert not list(workdir.glob("compare/runs/*/checkpoints"))


@pytest.mark.slow
def test_finished_trainings_are_not_repeated(compared):
    workdir, _ = compared
    before = json.loads((workdir / "compare.json").read_text())
    code, out, _ = run(*SMALL, f"--workdir={workdir}", f"--methods={TRAINED}")
    assert code == 0
    assert "epoch" not in out
    after = json.loads((workdir / "compare.json").read_text())
    accuracies = [
        [(row["title"], row["setting"], row["top1"]) for row in comparison["rows"] if not row["error"]]
        for comparison in (before, after)
    ]
    assert accuracies[0] == accuracies[1]


@pytest.mark.slow
def test_another_configs_workdir_is_refused(compared):
    workdir, _ = compared
    code, _, err = run(*SMALL, f"--workdir={workdir}", "--config.stages.stage1.epochs=2")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "holds a run of another config" in err


@pytest.mark.slow
def test_a_stopped_comparison_resumes_within_the_epoch_and_ends_the_same(compared, tmp_path):
    workdir, _ = compared
    arguments = (*SMALL, f"--workdir={tmp_path}", "--methods=bottlefit-patch,spinn")
    metrics = tmp_path / "compare" / "runs" / "bottlefit-patch-6ch-seed0" / "metrics.jsonl"
    code, out, err = signalled.run(
        "bottlefit_jax.compare", *arguments, signum=signal.SIGTERM, path=metrics, text="stage1"
    )
    assert code == 143, err
    assert "goes on from here" in out
    assert not (tmp_path / "compare" / "results" / "bottlefit-patch-6ch-seed0.json").exists()
    code, out, _ = run(*arguments)
    assert code == 0
    assert "stage1  epoch" not in out
    both = [json.loads((folder / "compare.json").read_text()) for folder in (workdir, tmp_path)]
    rows = [{(row["title"], row["setting"]): row for row in each["rows"]} for each in both]
    for key in (("BottleFit-patch", "6 channels, lossless"), ("SPINN", "no exit")):
        assert rows[0][key]["top1"] == rows[1][key]["top1"]
