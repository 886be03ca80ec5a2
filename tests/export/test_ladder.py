"""The rates of a bundle, with a tail that is one matrix."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bottlefit_jax.bundle import Manifest, read_bundle
from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rates import make_rates, rates_text
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.rates import STEPS
from export.ladder import measure_ladder, read_earlier, read_report
from tests.bundle import example
from tests.serve.example import SHAPE, expected, matrix, onnx_tail

SCALE = np.float32(0.01)  # of the tail, whose predictions would be too sure otherwise


def latents(count, seed, shape=SHAPE):
    """Smooth noise: uint8 [N, h, w, c]."""
    noise = np.random.default_rng(seed).normal(size=(count, *shape))
    smooth = noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2)
    return np.clip(np.rint(128 + 12 * smooth), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def tail(tmp_path_factory):
    path = tmp_path_factory.mktemp("tail") / "tail.onnx"
    model = onnx.load_from_string(onnx_tail())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(SCALE * matrix(), "matrix"))
    path.write_bytes(model.SerializeToString())
    return path


def measured(tail, training, *, teacher_top1=None):
    sent = latents(100, 2)
    labels = expected(sent).argmax(1)
    return measure_ladder(
        tail,
        training,
        sent,
        labels,
        columns=None,
        head=example.HEAD,
        zero_point=128,
        float_top1=100.0,
        teacher_top1=teacher_top1,
    )


@pytest.fixture(scope="module")
def ladder(tail):
    return measured(tail, latents(200, 1))


def test_the_rates_are_chosen_and_measured_through_the_tail(ladder):
    assert len(ladder.points) >= 5
    assert [rate.id for rate in ladder.rates.rates] == [point.rate.id for point in ladder.points]
    assert (ladder.points[0].rate.id, ladder.points[0].top1) == ("lossless", 100)
    assert len(ladder.candidates) >= len(ladder.points)
    assert ladder.default_point.top1 >= 99.7
    assert ladder.default_point.bytes_mean <= ladder.points[0].bytes_mean
    assert sorted(point.bytes_mean for point in ladder.points)[::-1] == [point.bytes_mean for point in ladder.points]


def test_manifest_and_file_say_the_same(ladder, tmp_path):
    ladder.write(tmp_path)
    text = (tmp_path / "rates.json").read_text()
    files = {**example.FILES, "rates.json": text.encode()}
    entries = [dataclasses.asdict(entry) for entry in ladder.entries()]
    folder = example.write(tmp_path / "b", files=files, rates=entries, default_rate=ladder.default)
    rates = read_bundle(folder).read_rates()
    assert rates is not None
    assert rates.key == ladder.rates.key
    assert rates.head == example.HEAD


def test_rates_that_are_kept_are_measured_and_not_chosen(tail, ladder):
    again = measured(tail, ladder.rates)
    assert again.rates is ladder.rates
    assert again.points == again.candidates
    assert [point.to_json() for point in again.points] == [point.to_json() for point in ladder.points]


def test_rates_of_another_head_and_a_bundle_without_rates_are_refused(tmp_path):
    manifest = Manifest.from_json(example.manifest())
    folder = example.write(tmp_path / "a", **example.with_rates())
    assert read_earlier(folder, manifest).head == example.HEAD
    other = "c" * 64
    tail = {**example.manifest()["tail"], "head": other}
    folder = example.write(tmp_path / "b", **example.with_rates(head={"id": other}, tail=tail))
    with pytest.raises(UserError, match="b has head cccccccccccc…, and this student's is aaaaaaaaaaaa…"):
        read_earlier(folder, manifest)
    with pytest.raises(UserError, match=r"^--rates-from .*c has no rates"):
        read_earlier(example.write(tmp_path / "c"), manifest)


def test_six_rates_of_twelve_channels_have_at_most_64_kilobytes():
    training = latents(30, 3, (29, 29, 12))
    fitted = [fit_rate(training, (step,) * 12, zero_point=128, id=str(step)) for step in STEPS[:6]]
    assert len(rates_text(make_rates(fitted, head=example.HEAD, shape=(29, 29, 12))).encode()) <= 64_000


@pytest.mark.parametrize("text", [None, "", "[1]", "\xff"])
def test_a_run_without_a_report_has_an_empty_one(tmp_path, text):
    if text is not None:
        (tmp_path / "report.json").write_text(text, encoding="latin-1")
    assert read_report(tmp_path) == {}
    (tmp_path / "report.json").write_text(json.dumps({"teacher": {"top1": 75.2}}))
    assert read_report(tmp_path) == {"teacher": {"top1": 75.2}}
