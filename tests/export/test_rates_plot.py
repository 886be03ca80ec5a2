"""What rates.png of a bundle shows."""

import dataclasses

import numpy as np
from matplotlib import image as png

from bottlefit_jax.evaluation.rate_plot import ImageFiles, draw_rate_curve
from bottlefit_jax.evaluation.rates import RatePoint
from export.ladder import Ladder
from export.rates_plot import image_files, rate_curve
from tests.bundle import example

REPORT = {
    "alternatives": [
        {"method": "local", "setting": "", "bytes": 0.0, "top1": 76.0, "images": 3},
        {"method": "jpeg", "setting": "quality 5", "bytes": 700.0, "top1": 58.0, "images": 3},
        {"method": "jpeg", "setting": "quality 95", "bytes": 2000.0, "top1": 73.5, "images": 3},
        {"method": "webp", "setting": "quality 5", "bytes": 220.0, "top1": 67.0, "images": 2},
        {"method": "student", "setting": "3 channels", "bytes": 90, "top1": 74.0, "images": 3},
    ]
}
IMAGES = np.zeros((3, 32, 32, 3), np.uint8)


def ladder():
    rates = example.rates(steps={"lossless": 1, "within-0.3": 8, "within-3": 24})
    points = tuple(
        RatePoint(rate, size, size + 5, top1, 99.0)
        for rate, size, top1 in zip(rates.rates, (60.0, 30.0, 20.0), (74.0, 73.9, 71.0), strict=True)
    )
    worst = dataclasses.replace(points[-1], bytes_mean=9.0, top1=12.0)
    return Ladder(rates, points, (*points, worst), "within-0.3")


def curve(files):
    return rate_curve(ladder(), raw=(90, 74.0), teacher_top1=76.0, files=files, dataset="digits", images=3)


def test_the_curve_has_raw_latents_the_rates_and_what_was_tried():
    found = curve(image_files(REPORT, IMAGES))
    assert found.rates == [
        ("raw", 90, 74.0),
        ("lossless", 60.0, 74.0),
        ("within-0.3", 30.0, 73.9),
        ("within-3", 20.0, 71.0),
    ]
    assert found.tried == [(60.0, 74.0), (30.0, 73.9), (20.0, 71.0)]  # without the one that is far below
    assert (found.default, found.teacher_top1) == ("within-0.3", 76.0)


def test_the_files_are_those_of_the_report():
    assert image_files(REPORT, IMAGES) == [
        ImageFiles(method="jpeg", setting="quality 5", sent=700.0, top1=58.0, images=3),
        ImageFiles(method="jpeg", setting="quality 95", sent=2000.0, top1=73.5, images=3),
        ImageFiles(method="webp", setting="quality 5", sent=220.0, top1=67.0, images=2),
    ]


def test_without_a_report_the_sizes_of_files_are_lines(tmp_path):
    files = image_files({}, IMAGES)
    assert {(file.method, file.setting, file.top1) for file in files} >= {("jpeg", "quality 50", None)}
    draw_rate_curve(tmp_path / "rates.png", curve(files))
    assert png.imread(tmp_path / "rates.png").std() > 0
