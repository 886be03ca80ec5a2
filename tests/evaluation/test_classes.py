"""Accuracy class by class: every class with images once, and the order in which people see them."""

import pytest

from bottlefit_jax.evaluation.accuracy import wilson_interval
from bottlefit_jax.evaluation.classes import SHOWN, ClassResult, class_results, worst
from bottlefit_jax.evaluation.report_text import report_text
from tests.evaluation.example import report

ROWS = class_results(["cat", "dog", "emu"], [4, 0, 8], {"teacher": [4, 0, 6], "student": [3, 0, 2]})


def test_a_class_without_images_has_no_row():
    assert [row.to_json() for row in ROWS] == [
        {"class": "cat", "images": 4, "teacher_top1": 100.0, "student_top1": 75.0},
        {"class": "emu", "images": 8, "teacher_top1": 75.0, "student_top1": 25.0},
    ]


def test_the_interval_is_the_students_or_that_of_a_teacher_alone():
    assert ROWS[1].interval95 == wilson_interval(2, 8)
    assert ClassResult(name="emu", images=8, correct={"teacher": 6}).interval95 == wilson_interval(6, 8)


def test_a_class_of_many_wrong_images_is_worse_than_one_of_a_single_wrong_image():
    once, often, good = (
        ClassResult(name=name, images=images, correct={"student": correct})
        for name, images, correct in (("once", 1, 0), ("often", 40, 10), ("good", 40, 39))
    )
    assert [row.name for row in worst([good, once, often])] == ["often", "once", "good"]


def test_people_see_a_few_classes_and_are_pointed_to_all():
    few = report_text(report(per_class=ROWS), (), None)
    assert "## Classes" in few
    assert few.index("| emu | 8 | 75.00 % | 25.00 % | 7.1 to 59.1 % |") < few.index("| cat | 4 | 100.00 % | 75.00 % |")
    rows = class_results([f"class {at}" for at in range(30)], [5] * 30, {"student": [4] * 30})
    many = report_text(report(teacher=None, per_class=rows), (), None)
    assert "## The worst classes" in many
    assert many.count("| class ") - 1 == SHOWN  # the heading is one, too
    assert "All 30 classes with images are under `per_class`" in many


def test_without_labels_the_rows_hold_agreement():
    rows = report(agreement=True, per_class=ROWS).to_json()["per_class"]
    assert rows[1] == {
        **{"class": "emu", "images": 8, "teacher_top1": None, "student_top1": None},
        **{"teacher_agreement": 75.0, "student_agreement": 25.0},
    }
    assert "| class | images | student | 95 % interval |" in report_text(
        report(agreement=True, per_class=ROWS), (), None
    )


@pytest.mark.parametrize("rows", [(), ROWS[:1]])
def test_one_class_is_no_table(rows):
    assert "lasses\n" not in report_text(report(per_class=rows), (), None)
