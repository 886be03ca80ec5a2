"""The command as a user runs it: a mistake is one line and exit code 2, and a small run writes a complete report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from bottlefit_jax import lock

ROOT = Path(__file__).parents[1]
SMALL = (
    "--config.teacher.options.width=8",
    "--config.stages.teacher.epochs=1",
    "--config.stages.stage1.epochs=1",
    "--config.stages.stage2.epochs=1",
)


def start(*arguments, config="configs/digits.py", **environment):
    command = [sys.executable, "-m", "bottlefit_jax.main", f"--config={config}", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


@pytest.fixture
def images(tmp_path):
    """A dataset folder of two classes with four images in each split."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                cv2.imwrite(str(folder / f"{index}.jpg"), rng.integers(0, 256, (40, 48, 3), np.uint8))
    return tmp_path / "set"


FOLDER = ("--config.dataset.name=folder", "--config.stages.stage1.batch_size=4", "--config.stages.stage2.batch_size=4")

NO_LABELS = (
    "--config.dataset.name=",
    "--config.teacher.weights=/nowhere",
    "--config.stages.teacher.epochs=0",
    "--config.stages.stage2.epochs=0",
)

CROSS_ENTROPY = ("--config.stages.stage2.loss=cross_entropy",)

MISTAKES = [
    (["--config.stages.stage3.epochs=1"], "unknown config key: .*stage3.*stage2"),
    (["--config.stages.stage1.epochs=many"], "stages.stage1.epochs=many"),
    (["--config.stages.stage1.epochs=-1"], "config.stages.stage1.epochs is -1; it must be at least 0"),
    (["--config.teacher.name=resnet19"], "unknown model 'resnet19'; the models are resnet18, "),
    (["--config.teacher.options.depth=3"], "unknown config key|unknown option"),
    (["--config.student.bottleneck.cut=layer9"], "'layer9'.*layer2"),
    (["--config.student.bottleneck.channels=0"], "channels=0 must be an integer from 1 up"),
    (["--config.student.bottleneck.bits=9"], "bits=9 must be an integer from 1 to 8"),
    (
        ["--config.student.bottleneck.range=fixed"],
        "config.student.bottleneck.range is 'fixed'; it can be 'dynamic'",
    ),
    (["--config.stages.stage1.matched=('layer9',)"], "stages.stage1.matched names 'layer9'"),
    (["--config.stages.stage2.loss=hinge"], "stages.stage2.loss is 'hinge'; it can be cross_entropy or distill"),
    (["--config.stages.stage2.optimizer=lion"], "config.stages.stage2.optimizer is 'lion'; it can be 'adam' or 'sgd'"),
    (["--config.stages.stage2.schedule=step"], "config.stages.stage2.schedule is 'step'; it can be 'multistep' or"),
    (["--config.stages.stage1.batch_size=4000"], "4000"),
    (["--config.dataset.name=folder", "--config.dataset.root=/nowhere"], "/nowhere"),
    (["--config.dataset.name=folder"], "root"),
    (["--config.teacher.weights=/nowhere"], "no weights at /nowhere"),
    (["--config.stages.teacher.epochs=0"], "there is no teacher"),
    (["--config.dataset.unlabelled=/nowhere"], "unlabelled folder '/nowhere' cannot be read: no such file"),
    (["--config.dataset.unlabelled=configs"], "unlabelled folder 'configs' holds no image .looked for"),
    (["--config.dataset.unlabelled="], "config.dataset.unlabelled has ''; each must be the path of a folder"),
    (["--config.dataset.unlabelled=README.md"], "unlabelled folder 'README.md' cannot be read: not a directory"),
    (["--config.dataset.unlabelled=(3,)"], "config.dataset.unlabelled has 3; each must be the path of a folder"),
    (["--config.dataset.name="], "is empty, so there are no labels, and config.stages.stage2.epochs is 8; it"),
    (
        ["--config.dataset.name=", "--config.stages.stage2.epochs=0"],
        "no labels, and config.stages.teacher.epochs is 18; it",
    ),
    (
        [*NO_LABELS, "--config.stages.stage2.epochs=2", *CROSS_ENTROPY, "--config.stages.stage2.alpha=0"],
        "alpha=0 to learn from the teacher alone, with config.stages.stage2.loss='distillation'",
    ),
    (
        [*NO_LABELS, "--config.stages.stage2.epochs=2", "--config.stages.stage2.loss=feature_matching"],
        "is empty, and so is config.dataset.unlabelled; one of them must name images to train on",
    ),
    ([*NO_LABELS, "--config.stages.stage2.epochs=2"], "config.stages.stage2.epochs is 2; it must be 0 .*alpha=0"),
    (
        [*NO_LABELS, "--config.stages.stage2.epochs=2", "--config.stages.stage2.alpha=0"],
        "is empty, and so is config.dataset.unlabelled; one of them must name images to train on",
    ),
    (
        [*NO_LABELS, "--config.teacher.weights=", "--config.dataset.unlabelled=tests"],
        "is compared with its teacher, and config.teacher.weights is empty",
    ),
    (["--config.dataset.eval_root=x"], "config.dataset.eval_root is 'x' and config.dataset.eval_name is empty"),
    (["--config.dataset.eval_name=folder", "--config.dataset.eval_root=/nowhere"], "folder '/nowhere' does not exist"),
    (["--config.student.rate.weight=-1"], "config.student.rate.weight is -1.0; it must be at least 0"),
    (["--config.student.rate.weight=text"], "config.student.rate.weight=text: it must be a number"),
    *(
        ([f"--config.student.rate.steps={value}"], f"config.student.rate.steps is .*{value or chr(39) * 2}.*; it must")
        for value in ("0", "-2", "nan", "inf", "wide", "")
    ),
    (["--verbose"], "Unknown command line flag 'verbose'"),
    (["digits"], "unexpected argument 'digits'"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The answers to all mistakes, from one process: importing JAX takes longer than any of them."""
    workdir = tmp_path_factory.mktemp("mistakes") / "run"
    script = """
import contextlib, io, json, sys
from bottlefit_jax.main import main
answers = []
for arguments in json.load(sys.stdin):
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        code = main(["--config=configs/digits.py", *arguments])
    answers.append([code, out.getvalue(), err.getvalue()])
import jax
assert not jax._src.xla_bridge.backends_are_initialized()  # so nothing was compiled
print(json.dumps(answers))
"""
    given = json.dumps([[f"--workdir={workdir}", *arguments] for arguments, _ in MISTAKES])
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not workdir.exists()
    return json.loads(done.stdout)


@pytest.mark.parametrize("index", range(len(MISTAKES)), ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2_before_any_compilation(answers, index):
    code, out, err = answers[index]
    assert (code, out) == (2, ""), err
    assert re.fullmatch(rf"error: .*({MISTAKES[index][1]}).*\n", err), err


def test_a_missing_config_or_workdir_is_an_error(tmp_path):
    problem = "error: no config file 'configs/none.py'; give a path, or the name of one of ours: digits, distil, "
    assert run(config="configs/none.py")[2].startswith(problem)
    code, _, err = run()
    assert code == 2
    assert err.startswith("error: --workdir is missing")


def test_bad_images_are_an_error_before_any_compilation(tmp_path, images):
    (images / "train" / "cat" / "1.jpg").write_bytes((images / "train" / "cat" / "0.jpg").read_bytes()[:-300])
    code, out, err = run(
        *FOLDER,
        f"--config.dataset.root={images}",
        f"--workdir={tmp_path / 'run'}",
        *SMALL[1:],
        "--config.stages.teacher.batch_size=4",
    )
    assert (code, out.count("epoch")) == (2, 0)
    assert re.fullmatch(r"error: .*train/cat/1\.jpg.*\n", err), err
    for path in (images / "val" / "dog").iterdir():
        path.unlink()
    code, _, err = run(*FOLDER, f"--config.dataset.root={images}", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert re.fullmatch(r"error: .*dog.*\n", err), err


def test_a_small_run_writes_a_complete_report_and_its_workdir_is_its_configs(demo):
    trained = demo(*SMALL)
    workdir = trained.workdir
    assert (trained.code, trained.err) == (0, ""), trained.err
    assert trained.out.count("no GPU found") == 1
    for stage in ("teacher", "stage1", "stage2"):
        line = rf"^{stage}  epoch 1/1  loss \S+  top-1 \S+ %  \d+ images/s$"
        assert len(re.findall(line, trained.out, re.M)) == 1
    report = json.loads((workdir / "report.json").read_text())
    keys = {"config", "dataset", "teacher", "student", "bytes_per_image", "encoder", "stages", "versions"}
    assert set(report) == keys | {"evaluation", "alternatives", "rates", "default_rate", "per_class"}
    rates = {rate["id"]: rate for rate in report["rates"]}
    assert rates["raw"]["bytes_mean"] == 5 * 5 * 3
    assert report["bytes_per_image"]["latent_payload"] == rates[report["default_rate"]]["bytes_mean"]
    assert report["student"]["top1"] == rates[report["default_rate"]]["top1"]
    assert len(rates) >= 6
    norms, convolutions = 3 * 2 * 48, 48 * 3 * 16 + 48 * 9 + 48 * 48 + 48 * 4 * 3
    assert report["encoder"]["params"] == norms + convolutions
    chance = pytest.approx(100 * 36 / 355)
    assert report["evaluation"] == {"images": 355, "measure": "accuracy", "chance_percent": chance}
    rows = {(row["method"], row["setting"]): row for row in report["alternatives"]}
    assert len(rows) == 2 + 2 * 4
    assert rows["student", "3 channels"]["bytes"] == report["bytes_per_image"]["latent_payload"]
    assert rows["student", "3 channels"]["device_macs"] == report["encoder"]["macs"]
    assert rows["webp", "quality 5"]["bytes"] < rows["jpeg", "quality 5"]["bytes"] < report["bytes_per_image"]["jpeg"]
    assert rows["jpeg", "quality 95"]["bytes"] == pytest.approx(report["bytes_per_image"]["jpeg"])
    assert rows["local", ""]["top1"] == report["teacher"]["top1"]
    classes = report["per_class"]
    assert [row["class"] for row in classes] == list("0123456789")
    for role in ("teacher", "student"):  # the mean over the images
        correct = sum(row["images"] * row[f"{role}_top1"] for row in classes)
        assert correct / 355 == pytest.approx(report[role]["top1"])
    low, high = report["teacher"]["top1_interval95"]
    assert low < report["teacher"]["top1"] < high
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "stage1", "stage2"]
    assert (workdir / "report.md").read_text().split("\n\n")[1].endswith("(rate_curve.png)")
    for name in (
        "report.md",
        "rate_curve.png",
        "training_curves.png",
        "latents.png",
        "metrics.jsonl",
        "teacher",
        "student",
    ):
        assert (workdir / name).exists(), name
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 3
    assert list((workdir / "tensorboard").iterdir())

    code, _, err = run(*SMALL, f"--workdir={workdir}", "--config.stages.stage1.learning_rate=0.5")
    assert code == 2
    assert "holds a run of another config (stages.stage1.learning_rate: 0.5 here, 0.002 there)" in err
    # What changes no weight may differ; a finished run is not trained again.
    code, out, _ = run(*SMALL, f"--workdir={workdir}", "--config.dataset.workers=1")
    assert code == 0
    assert "epoch" not in out


def test_a_second_run_in_a_workdir_names_the_first_and_changes_nothing(tmp_path):
    workdir = tmp_path / "run"
    with lock.hold(workdir / ".lock", workdir):
        code, out, err = run(*SMALL, f"--workdir={workdir}")
        assert [path.name for path in workdir.iterdir()] == [".lock"]
    assert (code, out) == (2, "")
    who = rf"process {os.getpid()} on \S+ since [-\d]+ [:\d]+ \S+"
    expected = rf"error: {workdir} is in use by {who}: wait until that has ended, or give another --workdir\n"
    assert re.fullmatch(expected, err), err


@pytest.mark.slow
def test_of_two_runs_at_once_the_first_trains_and_the_second_exits(tmp_path):
    arguments = (*SMALL, f"--workdir={tmp_path / 'run'}")
    done = [(p.returncode, out, err) for p in [start(*arguments), start(*arguments)] for out, err in [p.communicate()]]
    (_, _, err), (second, _, none) = sorted(done, key=lambda each: -each[0])
    assert (second, none) == (0, "")
    assert re.fullmatch(r"error: \S+ is in use by process .*\n", err), err
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "run" / ".lock").exists()


LATER = [pytest.param(seconds, marks=pytest.mark.slow) for seconds in (2, 6)]


@pytest.mark.parametrize("seconds", [0, *LATER])
def test_ctrl_c_is_one_line_from_the_start(tmp_path, seconds):
    """While libraries are imported, images are opened, or a step is compiled."""
    process = start(f"--workdir={tmp_path / 'run'}")
    status, sigterm = Path(f"/proc/{process.pid}/status"), 1 << (signal.SIGTERM - 1)
    while not int(re.search(r"SigCgt:\s+(\w+)", status.read_text())[1], 16) & sigterm:  # Python has started
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped by SIGINT; the same command goes on from here\n")


@pytest.mark.slow
def test_every_second_epoch_is_evaluated_and_the_last_one_always(tmp_path):
    workdir = tmp_path / "run"
    code, out, err = run(
        SMALL[0],
        f"--workdir={workdir}",
        "--config.stages.teacher.epochs=3",
        "--config.stages.stage1.epochs=0",
        "--config.stages.stage2.epochs=0",
        "--config.evaluate_every=2",
    )
    assert code == 0, err
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert ["top1" in record for record in records] == [False, True, True]
    assert ["top-1" in line for line in out.splitlines() if "  epoch " in line] == [False, True, True]


def test_a_non_finite_loss_stops_the_run_and_the_message_names_stage_step_and_term(tmp_path):
    code, out, err = run(
        *SMALL,
        f"--workdir={tmp_path / 'run'}",
        "--config.stages.stage1.learning_rate=1e20",
        "--config.stages.stage1.warmup_epochs=0",
        "--config.stages.stage1.schedule=constant",
    )
    assert code == 2, out
    assert re.fullmatch(
        r"error: stage1 stopped: the (loss term 'layer\d'|gradient) was not finite at step \d+; "
        r".*stages\.stage1\.learning_rate\n",
        err,
    ), err


@pytest.mark.parametrize("size", ["8k", pytest.param("300k", marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_exit_code_2(tmp_path, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        code, _, err = run(*SMALL, f"--workdir={disk / 'run'}")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert code == 2, err
    assert re.fullmatch(r"error: (cannot write .*: )?no space left on the disk.*\n", err), err


@pytest.mark.slow
def test_the_networks_of_a_run_are_evaluated_without_training(demo, tmp_path):
    """A teacher with its student, and the student alone, by a config that trains nothing."""
    workdir = demo(*SMALL).workdir
    trained = json.loads((workdir / "report.json").read_text())
    weights = {name: f"--config.{name}.weights={workdir / name}" for name in ("teacher", "student")}
    digits = ("--config.dataset.name=digits", "--config.dataset.image_size=32", "--config.dataset.resize=32")
    for given in (("teacher", "student"), ("student",), ("teacher",)):
        workdir = tmp_path / "-".join(given)
        chosen = [weights[name] for name in given]
        code, out, err = run(*digits, *chosen, f"--workdir={workdir}", config="configs/evaluate.py")
        assert (code, err) == (0, ""), err
        assert "epoch" not in out
        report = json.loads((workdir / "report.json").read_text())
        assert report["stages"] == []
        for name in weights:
            assert (report[name] is not None) == (name in given)
            assert name not in given or report[name]["top1"] == trained[name]["top1"]
    assert not (tmp_path / "teacher" / "student").exists()


def test_a_config_that_names_no_network_is_an_error(tmp_path):
    code, _, err = run(f"--workdir={tmp_path / 'run'}", config="configs/evaluate.py")
    assert (code, err) == (2, "error: there is no teacher: set config.teacher.weights to a folder, or "
                              "config.stages.teacher.epochs above 0\n")  # fmt: skip
