import dataclasses

import numpy as np
from matplotlib import image as png

from bottlefit_jax.evaluation import plots
from bottlefit_jax.evaluation.rates import RatePoint
from export import rates_plot
from export.ladder import Ladder
from export.rates_plot import ImageFile, draw_rates, image_files
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


def drawn(tmp_path, monkeypatch, **changes):
    """Draw, and return the axes."""
    kept = []
    monkeypatch.setattr(rates_plot, "save", lambda plot, path: (kept.append(plot), plots.save(plot, path)))
    values = {"raw": (90, 74.0), "float_top1": 74.1, "teacher_top1": 76.0, "files": image_files(REPORT, IMAGES)}
    draw_rates(tmp_path / "rates.png", ladder(), **{**values, **changes})
    assert png.imread(tmp_path / "rates.png").std() > 0
    return kept[0].axes[0]


def test_rates_are_named_markers_over_a_logarithmic_axis(tmp_path, monkeypatch):
    axes = drawn(tmp_path, monkeypatch)
    assert axes.get_xscale() == "log"
    names = {text.get_text() for text in axes.texts}
    assert {"lossless (60)", "within-0.3 (30)", "within-3 (20)", "q5", "q95"} <= names
    labels = set(axes.get_legend_handles_labels()[1])
    assert {
        "rates of this bundle",
        "default",
        "raw latent",
        "teacher",
        "teacher on JPEG",
        "teacher on WebP, 2 images",
    } <= labels
    assert axes.get_ylabel() == "top-1, %"
    low, high = axes.get_ylim()
    assert 50 < low < 58 < 76 < high  # the worst candidate is far below
    left, right = axes.get_xlim()
    assert left < 20
    assert right > 2000


def test_without_a_report_the_sizes_of_files_are_lines(tmp_path, monkeypatch):
    files = image_files({}, IMAGES)
    assert {(file.method, file.quality, file.top1) for file in files} >= {("jpeg", "quality 50", None)}
    axes = drawn(tmp_path, monkeypatch, files=files, teacher_top1=None)
    labels = axes.get_legend_handles_labels()[1]
    assert "JPEG, quality 50" in labels
    assert "teacher" not in labels


def test_the_files_are_those_of_the_report():
    assert image_files(REPORT, IMAGES) == [
        ImageFile("jpeg", "quality 5", 700.0, 58.0),
        ImageFile("jpeg", "quality 95", 2000.0, 73.5),
        ImageFile("webp", "quality 5", 220.0, 67.0, 2),
    ]


def test_files_of_nearly_one_size_share_a_name(tmp_path, monkeypatch):
    files = [ImageFile("jpeg", f"quality {quality}", 700.0 + quality, 74.0) for quality in (5, 20, 50)]
    axes = drawn(tmp_path, monkeypatch, files=files)
    assert [text.get_text() for text in axes.texts if text.get_text().startswith("q")] == ["q5"]


def test_without_labels_the_axis_is_named_for_agreement(tmp_path, monkeypatch):
    axes = drawn(tmp_path, monkeypatch, agreement=True, teacher_top1=None, files=[])
    assert axes.get_ylabel() == "agreement with the teacher, %"
