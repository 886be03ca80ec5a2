"""The text of `report.md`: the numbers, and an honest sentence whichever way they go."""

import pytest

from bottlefit_jax.evaluation.alternatives import Alternative
from bottlefit_jax.evaluation.report_text import report_text
from tests.evaluation.example import TEACHER, report


def text_of(report, *, images=(), command=None):
    return report_text(report, images, command)


def test_top5_of_a_few_classes_is_not_shown_as_a_result():
    few = {"top5": 100.0, "classes": 3}
    assert "| top-5 | – (3 classes) | – (3 classes) |" in text_of(report(teacher=few, student=few))
    assert "first five" not in text_of(report(teacher=few, student=None))
    more = text_of(report(teacher={**few, "classes": 6}, student=None))
    assert "for 100.00 % the right class is among the first five" in more


def test_the_text_has_the_numbers():
    command = "python -m bottlefit_jax.main --config=configs/digits.py --workdir=runs/d"
    text = text_of(report(), images=["latents.png"], command=command)
    assert text.startswith("# resnet50-3ch on digits\n")
    assert (
        "The device sends **144 bytes** per image, 85.8 % less than a JPEG at quality 95 (1,008 bytes), and "
        "**98.20 %** of the images are classified correctly, 0.30 points less than its teacher (98.50 %)." in text
    )
    assert "| on the device | nothing | 22.1 k parameters, 118 M multiply-adds |" in text
    assert "144 bytes (latent, 9 × 9 × 3, 8 bits per value, rate within-0.1)" in text
    assert "| teacher | 12 | 6 min 12 s | 1,234 |" in text
    assert "| stage1 | 10 | 8.2 s | 3.2 |" in text
    assert "(latents.png)" in text
    assert f"```sh\n{command}\n```" in text
    assert "python 3.11.7, device_count 8" in text
    for remark in ("authors", "beats", "trained elsewhere", "no quantiser", "costs no more"):
        assert remark not in text


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (0.61, "The student loses 0.61 points of top-1. That is more than the 0.6 points"),
        (-0.25, "The student beats its teacher by 0.25 points."),
        (-0.25, "0.25 points more than its teacher (98.50 %)"),
        (0.0, "as many as its teacher"),
        (0.001, "as many as its teacher"),
    ],
)
def test_the_drop_is_stated(points, sentence):
    assert sentence in text_of(report(student={"top1": TEACHER.top1 - points}))


def test_the_text_fits_an_unusual_run():
    text = text_of(
        report(
            student={"bits": None, "payload": 1512, "rates": (), "default_rate": None}, stages=[], dataset="my|images"
        )
    )
    assert text.startswith("# resnet50-3ch on my|images\n")
    assert "50.0 % **more** than a JPEG at quality 95" in text
    assert "sending the image costs no more" in text
    assert "no quantiser" in text
    assert "latent, 9 × 9 × 3)" in text
    assert "The teacher, resnet50, was trained elsewhere" in text
    assert "Nothing was trained in this run." in text


def test_every_rate_is_a_row_and_the_default_is_named():
    text = text_of(report())
    assert "| raw | 243 bytes | 243 bytes | 98.30 % | 0.10 points | – |" in text
    assert "| lossless | 201 bytes | 220 bytes | 98.30 % | 0.10 points | 1 |" in text
    assert "| **within-0.1** | 144 bytes | 160 bytes | 98.20 % | 0.20 points | 2 to 4 |" in text
    assert "The default, **within-0.1**, is the cheapest rate within 0.3 points of that" in text
    assert "with tables from training images." in text
    assert "tables from these evaluation images" in text_of(report(student={"tables_from": "val"}))
    assert "## Rates" not in text_of(report(student={"rates": (), "default_rate": None}))


def test_the_rate_curve_comes_before_anything_else():
    text = text_of(report(), images=["rate_curve.png", "training_curves.png", "latents.png"])
    assert text.startswith("# resnet50-3ch on digits\n\n![Top-1 against bytes per image at every rate, beside")
    order = [
        "(rate_curve.png)",
        "The device sends",
        "## Rates",
        "(training_curves.png)",
        "(latents.png)",
        "## Training",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("rate_curve.png") == 1


def test_a_teacher_alone_is_reported_without_what_a_student_adds():
    text = text_of(report(student=None, files=(), stages=[]))
    assert text.startswith("# resnet50 on digits\n\n**98.50 %** of the images are classified correctly")
    assert "| sent per image | 1,008 bytes (JPEG, quality 95) |" in text
    assert "was trained elsewhere and only evaluated here" in text
    assert "What else the device could do" not in text
    assert "None" not in text


def test_a_student_alone_is_compared_with_nothing():
    text = text_of(report(teacher=None, files=()))
    assert "**98.20 %** of the images are classified correctly." in text
    assert "teacher" not in text.split("## Training")[0]


def with_webp(*, sent, top1, encoder=118_013_952):
    """The report with another WebP and another size of the encoder."""
    jpeg = report().files[0]
    return report(student={"macs": encoder}, files=[jpeg, Alternative("webp", "quality 5", sent, top1, 1000, 0)])


def test_the_student_is_compared_with_the_teacher_on_the_device_and_with_files():
    text = text_of(report())
    assert "| teacher on the device | 0 bytes | 98.50 % | 97.54 to 99.09 % | 1,000 | 1 G |" in text
    assert "| JPEG, quality 5 | 673 bytes | 60.00 % | 56.93 to 62.99 % | 1,000 | 0 |" in text
    assert "| student, 3 channels | 144 bytes | 98.20 % | 97.17 to 98.86 % | 1,000 | 118 M |" in text
    assert "is WebP, quality 5, with 315 bytes; the student sends 54 % less." in text
    assert "The encoder has 12 % of the teacher's multiply-adds." in text
    assert "**" not in text.split("## What else")[1].split("##")[0]


def test_a_file_that_beats_the_student_and_an_encoder_almost_as_large_as_the_teacher_are_named():
    text = text_of(with_webp(sent=120.0, top1=98.9, encoder=884_000_000))
    assert "**Splitting saves no bytes here**: WebP, quality 5 sends 120 bytes, no more than the student's 144" in text
    assert "98.90 % are classified correctly (student: 98.20 %)" in text
    assert "**Splitting saves little computing here**: the encoder has 88 % of the teacher's multiply-adds" in text


def test_a_smaller_file_that_is_measurably_worse_does_not_beat_the_student():
    assert "All of these files are measurably worse than the student." in text_of(with_webp(sent=120.0, top1=90.0))


@pytest.mark.parametrize(("top1", "warned"), [(9.0, True), (20.0, True), (30.0, False)])
def test_a_teacher_near_chance_is_warned_of(top1, warned):
    poor = {"top1": top1, "images": 355}
    text = text_of(report(teacher=poor, student={"images": 355}, images=355, chance_percent=10.4))
    assert ("**The teacher is near chance**" in text) == warned
    assert (f"{top1:.2f} % of 355 images, and the most frequent class alone gives 10.40 %" in text) == warned
    assert "The student is near chance" not in text


def test_agreement_is_never_called_accuracy():
    text = text_of(report(agreement=True), images=["rate_curve.png"])
    assert "![Agreement against bytes per image" in text
    assert "JPEG at quality 95 (1,008 bytes), and for **98.20 %** of the images its teacher gives the same" in text
    assert "**There were no labels.**" in text
    assert "how many of 1,000 images get the teacher's answer" in text
    assert "accuracy is not known" in text
    assert "| agreement with the teacher | 98.50 % | 98.20 % |" in text
    assert "classified correctly" not in text
    assert "top-" not in text
    assert "points of top-1" not in text
