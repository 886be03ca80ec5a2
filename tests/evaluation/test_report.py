import copy
import errno
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation import alternatives
from bottlefit_jax.evaluation.markdown import count_text, duration_text
from bottlefit_jax.evaluation.report import versions, write_report, write_text


@pytest.fixture
def report():
    return {
        "config": {"model": "resnet50", "schedule": (5, 10), "resume": None},
        "dataset": "digits",
        "teacher": {"name": "resnet50", "top1": 98.5, "top5": 100.0, "epochs": 12},
        "student": {"name": "resnet50-3ch", "top1": 98.2, "top5": 99.9, "top1_drop_points": 0.3, "bits": 8},
        "bytes_per_image": {"latent_payload": 252, "jpeg": 1008.0, "saving_percent": 75.0},
        "encoder": {"params": np.int64(22123), "macs": 118013952},
        "stages": [
            {"name": "teacher", "epochs": 12, "seconds": 372.4, "images_per_second": 1234.5},
            {"name": "stage1", "epochs": 10, "seconds": 8.21, "images_per_second": jnp.float32(3.25)},
        ],
        "versions": {"python": "3.11.7", "device_count": 8},
    }


def text_of(tmp_path, report, **options):
    write_report(tmp_path, report, **options)
    return (tmp_path / "report.md").read_text()


def lose(report, points):
    report["student"]["top1"] = report["teacher"]["top1"] - points
    report["student"]["top1_drop_points"] = points


def test_json_holds_what_was_given_as_plain_numbers(tmp_path, report):
    write_report(tmp_path, report)
    written = json.loads((tmp_path / "report.json").read_text())
    assert list(written) == list(report)
    assert written["encoder"] == {"params": 22123, "macs": 118013952}
    assert written["config"]["schedule"] == [5, 10]
    assert written["teacher"]["epochs"] == 12
    assert written["stages"][1]["images_per_second"] == 3.25
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_top5_of_a_few_classes_is_not_shown_as_a_result(tmp_path, report):
    report["teacher"].update(top5=100.0, classes=3)
    report["student"].update(top5=100.0, classes=3)
    text = text_of(tmp_path, report)
    assert "| top-5 | – (3 classes) | – (3 classes) |" in text
    report["student"] = report["encoder"] = report["bytes_per_image"]["latent_payload"] = None
    report["bytes_per_image"]["saving_percent"] = None
    assert "first five" not in text_of(tmp_path, report)
    report["teacher"]["classes"] = 6
    assert "for 100.00 % the right class is among the first five" in text_of(tmp_path, report)


def test_the_text_says_the_numbers(tmp_path, report):
    (tmp_path / "latents.png").touch()
    text = text_of(tmp_path, report, command="python -m bottlefit_jax.main --config=configs/digits.py --workdir=runs/d")
    assert text.startswith("# resnet50-3ch on digits\n")
    assert (
        "The device sends **252 bytes** per image, 75.0 % less than a JPEG at quality 95 (1,008 bytes), and "
        "**98.20 %** of the images are classified correctly, 0.30 points less than its teacher (98.50 %)." in text
    )
    assert "| on the device | nothing | 22.1 k parameters, 118 M multiply-adds |" in text
    assert "| teacher | 12 | 6 min 12 s | 1,234 |" in text
    assert "| stage1 | 10 | 8.2 s | 3.2 |" in text
    assert "(latents.png)" in text
    assert "(training_curves.png)" not in text
    assert "```sh\npython -m bottlefit_jax.main --config=configs/digits.py --workdir=runs/d\n```" in text
    assert "python 3.11.7, device_count 8" in text
    for remark in ("authors", "beats", "trained elsewhere", "no quantiser", "costs no more"):
        assert remark not in text


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (0.61, "The student loses 0.61 points of top-1. That is more than the 0.6 points"),
        (-0.25, "The student beats its teacher by 0.25 points."),
        (-0.25, "0.25 points more than its teacher (98.50 %)"),
        (0.0, "as many as its teacher"),
        (0.001, "as many as its teacher"),
    ],
)
def test_the_drop_is_said_plainly(tmp_path, report, points, said):
    lose(report, points)
    assert said in text_of(tmp_path, report)


def test_the_text_fits_an_unusual_run(tmp_path, report):
    report["student"].update(bits=None, latent_shape=(9, 9, 3))
    report["bytes_per_image"] = {"latent_payload": 1512, "jpeg": 1008, "saving_percent": -50}
    report["stages"] = []
    report["dataset"] = {"name": "my|images", "classes": 3}
    text = text_of(tmp_path, report)
    assert text.startswith("# resnet50-3ch on my|images\n")
    assert "50.0 % **more** than a JPEG at quality 95" in text
    assert "sending the image costs no more" in text
    assert "no quantiser" in text
    assert "latent, 9 × 9 × 3)" in text
    assert "The teacher, resnet50, was trained elsewhere" in text
    assert "Nothing was trained in this run." in text


def test_all_that_is_wrong_is_listed_and_nothing_is_written(tmp_path, report):
    report["notes"] = "?"
    del report["encoder"]["macs"]
    report["teacher"]["top1"] = "98"
    report["stages"][0]["epochs"] = 1.5
    report["stages"][1]["speed"] = 3
    report["bytes_per_image"]["jpeg"] = float("nan")
    report["student"]["extra"] = [float("inf")]
    report["config"]["rate"] = float("nan")
    with pytest.raises(ValueError, match="not a report") as caught:
        write_report(tmp_path, report)
    for problem in (
        "report has an unknown key 'notes'",
        "report.encoder lacks 'macs'",
        "report.teacher.top1 is '98'",
        "report.stages[0].epochs is 1.5",
        "report.stages[1] has an unknown key 'speed'",
        "report.bytes_per_image.jpeg is nan",
        "report.student.extra holds a number that is not finite",
        "report.config holds a number that is not finite",
    ):
        assert problem in str(caught.value)
    assert not isinstance(caught.value, UserError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("student", "top1_drop_points", -0.3, "the difference is 0.3"),
        ("student", "top1_drop_points", None, "the difference is 0.3"),
        ("student", "top5", 0.999e3, "not a percentage"),
        ("bytes_per_image", "latent_payload", None, "latent_payload is None, and report.student is {'name'"),
        ("bytes_per_image", "saving_percent", 0.75, "the sizes give 75.0"),
        ("bytes_per_image", "jpeg", 0, "not above 0"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(tmp_path, report, part, key, value, said):
    report[part][key] = value
    with pytest.raises(ValueError, match=said):
        write_report(tmp_path, report)


def test_a_teacher_alone_is_reported_without_what_a_student_adds(tmp_path, report):
    report["student"] = report["encoder"] = None
    report["bytes_per_image"] = {"latent_payload": None, "jpeg": 1008.0, "saving_percent": None}
    report["stages"] = []
    text = text_of(tmp_path, report)
    assert text.startswith("# resnet50 on digits\n\n**98.50 %** of the images are classified correctly")
    assert "| sent per image | 1,008 bytes (JPEG, quality 95) |" in text
    assert "was trained elsewhere and only evaluated here" in text
    assert "None" not in text.split("## Made")[0]
    assert json.loads((tmp_path / "report.json").read_text())["student"] is None
    report["teacher"] = None
    with pytest.raises(ValueError, match="neither a teacher nor a student"):
        write_report(tmp_path, report)


def test_a_student_alone_is_compared_with_nobody(tmp_path, report):
    report["teacher"] = report["student"]["top1_drop_points"] = None
    text = text_of(tmp_path, report)
    assert "**98.20 %** of the images are classified correctly." in text
    assert "teacher" not in text.split("## Training")[0]


def with_alternatives(report, *, webp_bytes, webp_top1, encoder=118_013_952):
    """The report with rows of a teacher on the device, a JPEG, a WebP and the student, each of 1,000 images."""
    report["evaluation"] = {"images": 1000, "chance_percent": 10.0}
    report["encoder"]["macs"] = encoder
    report["alternatives"] = [
        alternatives.row("local", "", sent=0.0, top1=98.5, images=1000, device_macs=1_000_000_000),
        alternatives.row("jpeg", "quality 5", sent=673.4, top1=60.0, images=1000, device_macs=0),
        alternatives.row("webp", "quality 5", sent=webp_bytes, top1=webp_top1, images=1000, device_macs=0),
        alternatives.row("student", "3 channels", sent=252, top1=98.2, images=1000, device_macs=encoder),
    ]
    return report


def test_the_student_stands_beside_the_teacher_on_the_device_and_beside_files(tmp_path, report):
    text = text_of(tmp_path, with_alternatives(report, webp_bytes=315.0, webp_top1=98.0))
    assert "| teacher on the device | 0 bytes | 98.50 % | 97.54 to 99.09 % | 1,000 | 1 G |" in text
    assert "| JPEG, quality 5 | 673 bytes | 60.00 % | 56.93 to 62.99 % | 1,000 | 0 |" in text
    assert "| student, 3 channels | 252 bytes | 98.20 % | 97.17 to 98.86 % | 1,000 | 118 M |" in text
    assert "is WebP, quality 5, with 315 bytes; the student sends 20 % less." in text
    assert "The encoder has 12 % of the teacher's multiply-adds." in text
    assert "**" not in text.split("## What else")[1].split("##")[0]
    assert json.loads((tmp_path / "report.json").read_text())["alternatives"][1]["bytes"] == 673.4


def test_a_file_that_beats_the_student_and_an_encoder_as_dear_as_the_teacher_are_named(tmp_path, report):
    text = text_of(tmp_path, with_alternatives(report, webp_bytes=120.0, webp_top1=98.9, encoder=884_000_000))
    assert "**Splitting saves no bytes here**: WebP, quality 5 sends 120 bytes, no more than the student's 252" in text
    assert "98.90 % are classified correctly (student: 98.20 %)" in text
    assert "**Splitting saves little computing here**: the encoder has 88 % of the teacher's multiply-adds" in text


def test_a_smaller_file_that_is_measurably_worse_does_not_beat_the_student(tmp_path, report):
    text = text_of(tmp_path, with_alternatives(report, webp_bytes=120.0, webp_top1=90.0))
    assert "All of these files are measurably worse than the student." in text


@pytest.mark.parametrize(("top1", "warned"), [(9.0, True), (20.0, True), (30.0, False)])
def test_a_teacher_near_chance_is_warned_of(tmp_path, report, top1, warned):
    report["teacher"]["top1"] = top1
    lose(report, top1 - 98.2)
    report["evaluation"] = {"images": 355, "chance_percent": 10.4}
    text = text_of(tmp_path, report)
    assert ("**The teacher is near chance**" in text) == warned
    assert (f"{top1:.2f} % of 355 images, and the most frequent class alone gives 10.40 %" in text) == warned
    assert "The student is near chance" not in text


def test_a_row_of_another_structure_is_refused(tmp_path, report):
    del with_alternatives(report, webp_bytes=1.0, webp_top1=50.0)["alternatives"][2]["images"]
    with pytest.raises(ValueError, match=r"report.alternatives\[2\] lacks 'images'"):
        write_report(tmp_path, report)


def test_a_full_disk_leaves_the_old_report_and_no_scraps(tmp_path, report, monkeypatch):
    write_report(tmp_path, report)
    before = (tmp_path / "report.json").read_text()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    newer = copy.deepcopy(report)
    newer["dataset"] = "another"
    with pytest.raises(UserError, match=r"cannot write .*report\.md: no space left on the disk"):
        write_report(tmp_path, newer)
    assert (tmp_path / "report.json").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_a_missing_folder_is_told(tmp_path, report):
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path / "missing", report)


def test_versions_name_the_libraries_and_the_device():
    found = versions()
    assert list(found) == ["python", "jax", "flax", "optax", "numpy", "bottlefit_jax", "device", "device_count"]
    assert found["numpy"] == np.__version__
    assert found["device"] == "cpu"


def test_numbers_are_written_for_people():
    assert [count_text(n) for n in (0, 999, 1000, 22123, 999_999, 118_013_952, 4_120_000_000)] == [
        "0",
        "999",
        "1 k",
        "22.1 k",
        "1 M",
        "118 M",
        "4.12 G",
    ]
    assert [duration_text(s) for s in (0.04, 59.94, 59.96, 372.4, 3599.7, 11100)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "6 min 12 s",
        "1 h 00 min",
        "3 h 05 min",
    ]


def test_a_name_that_no_text_can_hold_is_escaped(tmp_path):
    write_text(tmp_path / "x.md", "caf\udce9 é\n")
    assert (tmp_path / "x.md").read_bytes() == b"caf\\udce9 \xc3\xa9\n"
