"""The teacher on images as they are and on compressed ones: its accuracy, and the sizes of the files."""

import json

import numpy as np
import pytest

from bottlefit_jax.compare.teacher import TeacherEvaluation, jpeg_mean, last_fifth, mean_and_p95
from bottlefit_jax.evaluation.image_bytes import decode_images, encode_images, jpeg_bytes


@pytest.fixture(scope="module")
def teacher(setting):
    return TeacherEvaluation(setting)


def test_a_lossless_format_costs_bytes_and_no_accuracy(setting, teacher):
    local, png = teacher.on_device(), teacher.on_files("PNG", 0)
    assert (png["top1"], png["top5"]) == (local["top1"], local["top5"])
    assert local["bytes"] == {"mean": 0.0, "p95": 0.0}
    assert png["bytes"]["p95"] >= png["bytes"]["mean"] > 100


def test_sizes_are_of_every_image_and_of_no_padding_of_the_last_batch(setting, teacher):
    images = np.concatenate([batch["image"][batch["mask"]] for batch in setting.batches()])
    assert len(images) == len(setting.source)
    sizes = jpeg_bytes(images, quality=95)
    assert teacher.on_files("JPEG", 95)["bytes"] == mean_and_p95(sizes)
    assert jpeg_mean(setting) == pytest.approx(sizes.mean())


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_a_lower_quality_has_fewer_bytes_and_a_larger_error(setting, image_format):
    images = next(iter(setting.batches(limit=4)))["image"][:4]
    poor, good = (encode_images(images, image_format=image_format, quality=quality) for quality in (5, 95))
    assert sum(map(len, poor)) < sum(map(len, good))
    error = [np.abs(decode_images(files).astype(int) - images).mean() for files in (poor, good)]
    assert error[0] > error[1]
    assert error[1] < 8


@pytest.mark.parametrize(
    ("top1", "text"),
    [
        ({8: 90.0, 9: 91.0, 10: 92.5}, "2.50 points (90.00 % after epoch 8 of 10, 92.50 % at the end)"),
        ({7: 90.0, 9: 91.0, 10: 89.0}, "-1.00 points (90.00 % after epoch 7 of 10, 89.00 % at the end)"),
        ({9: 91.0, 10: 92.0}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_what_the_teachers_last_fifth_gained_is_in_the_log_of_its_training(tmp_path, top1, text):
    records = [{"stage": "teacher", "epoch": n, **({"top1": top1[n]} if n in top1 else {})} for n in range(1, 11)]
    records += [{"stage": "stage2", "epoch": n, "top1": 1.0} for n in range(1, 31)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert last_fifth(path) == text


def test_where_the_teacher_was_not_trained_here_its_gain_is_unknown(tmp_path):
    assert last_fifth(None) == "unknown"
    assert last_fifth(tmp_path / "metrics.jsonl") == "unknown"
