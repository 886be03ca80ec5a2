"""What can be held of the benchmark on Triton without a Triton: its mistakes, and the comparison of two outputs."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import triton_check
from bottlefit_jax.bundle import read_bundle
from tests.bundle import example

ROOT = Path(__file__).parents[2]


def output(path, *labels, probability=0.5):
    """Write what the device prints about images with these labels."""
    sent = {"bytes_sent": {"payload": 20}, "timings": {"network": 1.5}}
    path.write_text(
        "".join(
            f"{json.dumps({'file': 'x', 'label': label, 'probability': probability, **sent})}\n" for label in labels
        )
    )
    return str(path)


def test_without_a_run_it_says_how_it_is_called():
    result = subprocess.run(["benchmarks/triton.sh"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "benchmarks/triton.sh WORKDIR" in result.stderr


def test_equal_outputs_pass_as_often_as_the_images_were_sent(tmp_path, capsys):
    once, twice = output(tmp_path / "once", "a", "b"), output(tmp_path / "twice", "a", "b", "a", "b")
    triton_check.compare("raw", twice, once, "2")
    assert capsys.readouterr().out.startswith("raw: 4 of 4 labels equal, probabilities within 0; 20.0 bytes an image")


@pytest.mark.parametrize(
    ("labels", "probability", "message"),
    [("ac", 0.5, "1 labels differ"), ("ab", 0.51, "probabilities by up to 0.01"), ("a", 0.5, "1 answers instead of 2")],
)
def test_other_outputs_fail(tmp_path, labels, probability, message):
    one, other = output(tmp_path / "one", *labels, probability=probability), output(tmp_path / "other", "a", "b")
    with pytest.raises(triton_check.CheckFailed, match=message):
        triton_check.compare("raw", one, other)


def test_the_bundle_of_a_stranger_is_valid_and_has_another_head(tmp_path):
    folder = example.write(tmp_path / "bundle", **example.with_rates())
    triton_check.stranger(str(folder), str(tmp_path / "stranger"))
    other = read_bundle(tmp_path / "stranger")
    assert other.manifest.head.id != read_bundle(folder).manifest.head.id
    assert other.read_rates() is None
