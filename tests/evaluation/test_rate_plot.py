"""The rate curve: of a report, it draws what report.json has."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.payloads import RateResult
from bottlefit_jax.evaluation.rate_plot import ImageFiles, _figure, curve_of, draw_rate_curve, message
from tests.evaluation.example import STUDENT, report


def drawn(report):
    """The lines of a report's plot by name, [n, 2], and the texts in it."""
    return drawn_curve(curve_of(report))


def drawn_curve(curve):
    (axes,) = _figure(curve).axes
    return {line.get_gid(): np.asarray(line.get_xydata()) for line in axes.lines}, axes


def rows(values, size):
    return np.asarray([(row[size], row["top1"]) for row in values])


def texts(axes):
    return [text for text in axes.texts if text.get_text()]


def test_the_curve_is_the_rates_of_the_json_with_the_teacher_and_the_files_in_range():
    one = report()
    lines, axes = drawn(one)
    values = one.to_json()
    np.testing.assert_array_equal(lines["rates"], rows(values["rates"], "bytes_mean"))
    default = [row for row in values["rates"] if row["id"] == values["default_rate"]]
    np.testing.assert_array_equal(lines["default"], rows(default, "bytes_mean"))
    assert set(lines["teacher"][:, 1]) == {values["teacher"]["top1"]}
    webp = [row for row in values["alternatives"] if row["method"] == "webp"]
    np.testing.assert_array_equal(lines["webp"], rows(webp, "bytes"))
    assert not len(lines["jpeg"])  # 60 %, far below every rate
    names = " ".join(text.get_text() for text in texts(axes))
    for shown in ("raw\n243 bytes", "lossless\n201 bytes", "within-0.1\n144 bytes, default", "teacher\n98.50 %"):
        assert shown in names


def test_files_of_far_more_bytes_than_the_student_are_outside():
    far = [dataclasses.replace(row, sent=12.1 * 243) for row in report().files]
    assert not len(drawn(report(files=far))[0]["webp"])


@pytest.mark.parametrize(
    "sizes",
    [
        [(75, 98.9), (66, 98.9), (48, 99.2), (37, 98.9), (21, 98.9), (15, 96.6)],
        [(75, 98.5), (70, 98.5), (20, 98.5), (18, 98.2), (17.5, 97.9), (17, 97.9), (14, 97.1), (12, 95.9)],
    ],
)
def test_the_name_of_every_rate_is_inside_and_none_overlaps_another(sizes):
    rates = [
        RateResult(id=f"within-{n}", steps=None, bytes_mean=b, bytes_p95=b, top1=t, top5=100)
        for n, (b, t) in enumerate(sizes)
    ]
    _, axes = drawn(report(student={"rates": rates, "default_rate": "within-4"}))
    names = [text for text in texts(axes) if "within-" in text.get_text()]
    assert len(names) == len(rates)
    boxes = [text.get_window_extent() for text in texts(axes)]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    frame = axes.get_window_extent()
    for text in names:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_a_student_without_a_quantiser_is_one_point():
    lines, axes = drawn(report(student={"rates": (), "default_rate": None, "bits": None, "payload": 972.0}))
    np.testing.assert_array_equal(lines["rates"], [(972.0, STUDENT.top1)])
    assert "default" not in lines
    assert any(text.get_text() == "float32\n972 bytes\n98.20 %" for text in texts(axes))


def test_a_student_without_a_teacher_has_no_line_for_it():
    lines, _ = drawn(report(teacher=None, files=()))
    assert "teacher" not in lines
    assert len(lines["rates"]) == len(STUDENT.rates)


def test_agreement_is_named_and_never_above_100_percent():
    _, axes = drawn(report(agreement=True, teacher={"top1": 100.0}))
    assert axes.get_ylabel() == "agreement with the teacher, %"
    assert 99 <= max(axes.get_yticks()) <= 100


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "144 bytes an image cost 0.3 points of top-1 on digits"),
        ({"teacher": {"top1": 98.2}}, "144 bytes an image cost no top-1 on digits"),
        (
            {"teacher": {"top1": 98.0}},
            "144 bytes an image give 0.2 points of top-1 more than the teacher has on digits",
        ),
        ({"teacher": None}, "144 bytes an image give 98.2 % top-1 on digits"),
        ({"agreement": True}, "144 bytes an image keep 98.2 % of the teacher's answers on digits"),
        ({"student": {"default_rate": None}}, "243 bytes an image cost 0.2 points of top-1 on digits"),
    ],
)
def test_the_title_says_what_an_image_costs(changes, title):
    assert message(curve_of(report(files=(), **changes))) == title


def test_the_title_names_the_smallest_file_that_does_as_well():
    files = [
        ImageFiles(method=method, setting=f"quality {quality}", sent=sent, top1=top1, images=9)
        for method, quality, sent, top1 in (("webp", 5, 100, 98.0), ("webp", 20, 315, 98.3), ("jpeg", 50, 900, 98.4))
    ]
    assert message(dataclasses.replace(curve_of(report()), files=files)).endswith("; WebP 20 does as well with 315")
    assert "WebP" not in message(dataclasses.replace(curve_of(report()), files=files[:1]))


@pytest.mark.parametrize("sent", [0.5, 972.0, 2e6])
@pytest.mark.parametrize("top1", [0.0, 50.0, 100.0])
def test_one_rate_stands_within_the_frame(sent, top1):
    curve = dataclasses.replace(curve_of(report(teacher=None)), files=(), default=None, rates=[("raw", sent, top1)])
    _, axes = drawn_curve(curve)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left * 1.5 < sent < right / 1.5
    assert right < 10 * left
    assert low < top1 < high < low + 5
    assert len([tick for tick in axes.get_xticks() if left <= tick <= right]) >= 2


@pytest.mark.parametrize("dataset", ["digits", "a_folder_with_a_name_that_is_longer_than_any_image_is_wide" * 3])
def test_texts_are_in_the_image_and_large_enough_and_axes_have_units(dataset):
    plot = _figure(dataclasses.replace(curve_of(report()), dataset=dataset))
    plot.draw_without_rendering()
    (axes,) = plot.axes
    for text in (*texts(axes), plot._suptitle, axes.xaxis.label, axes.yaxis.label):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= plot.bbox.width + 1, text
        assert 0 <= box.y0 < box.y1 <= plot.bbox.height + 1, text
        assert text.get_fontsize() * 800 / (72 * plot.get_figwidth()) >= 11, "pixels where the plot is 800 wide"
    assert "bytes" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()


def test_rates_that_were_not_kept_are_drawn_faintly():
    curve = dataclasses.replace(curve_of(report()), tried=[(150.0, 98.0), (300.0, 98.2)])
    lines, _ = drawn_curve(curve)
    np.testing.assert_array_equal(lines["tried"], curve.tried)


def test_files_whose_accuracy_is_not_known_are_lines_with_their_size():
    files = [ImageFiles(method="jpeg", setting="quality 50", sent=400.0, top1=None, images=100)]
    lines, axes = drawn_curve(dataclasses.replace(curve_of(report()), files=files))
    assert set(lines["jpeg bytes"][:, 0]) == {400.0}
    assert any(text.get_text() == "JPEG 50\n400 bytes" for text in texts(axes))
    assert "files of 100" in axes.get_xlabel()


def test_files_of_as_many_images_are_not_mentioned():
    files = [dataclasses.replace(row, images=report().images) for row in report().files]
    assert "files of" not in drawn(report(files=files))[1].get_xlabel()


def test_a_curve_is_a_file_and_a_report_without_a_student_has_none(tmp_path):
    draw_rate_curve(tmp_path / "rates.png", curve_of(report()))
    with Image.open(tmp_path / "rates.png") as image:
        assert image.size == (1200, 720)
    assert curve_of(report(student=None, files=())) is None
    with pytest.raises(UserError, match="cannot write"):
        draw_rate_curve(tmp_path / "missing" / "rates.png", curve_of(report()))
