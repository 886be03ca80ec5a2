"""`report.json`: its keys, which other people's tools read, and what is computed from the measured numbers."""

import json

import numpy as np
import pytest

from bottlefit_jax.evaluation.alternatives import interval
from bottlefit_jax.evaluation.report import plain_values, versions
from tests.evaluation.example import report


def test_the_json_has_the_keys_and_values_of_the_interface():
    assert json.loads(json.dumps(report().to_json())) == {
        "config": {"model": "resnet50", "schedule": [5, 10], "resume": None},
        "dataset": "digits",
        "teacher": {
            "name": "resnet50",
            "top1": 98.5,
            "top5": 100.0,
            "images": 1000,
            "top1_interval95": interval(98.5, 1000),
            "classes": 10,
        },
        "student": {
            "name": "resnet50-3ch",
            "top1": 98.2,
            "top5": 99.9,
            "images": 1000,
            "top1_interval95": interval(98.2, 1000),
            "bits": 8,
            "latent_shape": [9, 9, 3],
            "top1_drop_points": 98.5 - 98.2,
            "classes": 10,
            "float_top1": 98.4,
            "tables_from": "train",
        },
        "bytes_per_image": {
            "latent_payload": 143.5,
            "jpeg": 1008.0,
            "saving_percent": pytest.approx(85.7639, abs=1e-3),
        },
        "default_rate": "within-0.1",
        "rates": [
            {"id": id, "steps": steps, "bytes_mean": mean, "bytes_p95": p95, "top1": top1, "top5": 99.9}
            for id, steps, mean, p95, top1 in (
                ("raw", None, 243, 243, 98.3),
                ("lossless", [1, 1, 1], 201.25, 220, 98.3),
                ("within-0.1", [2, 4, 3], 143.5, 160, 98.2),
            )
        ],
        "encoder": {"params": 22123, "macs": 118013952},
        "evaluation": {"measure": "accuracy", "images": 1000, "chance_percent": 10.0},
        "alternatives": [
            {
                "method": method,
                "setting": setting,
                "bytes": sent,
                "top1": top1,
                "top1_interval95": interval(top1, 1000),
                "images": 1000,
                "device_macs": macs,
            }
            for method, setting, sent, top1, macs in (
                ("local", "", 0.0, 98.5, 1_000_000_000),
                ("jpeg", "quality 5", 673.4, 60.0, 0),
                ("webp", "quality 5", 315.0, 98.0, 0),
                ("student", "3 channels", 143.5, 98.2, 118_013_952),
            )
        ],
        "stages": [
            {"name": "teacher", "epochs": 12, "seconds": 372.4, "images_per_second": 1234.5},
            {"name": "stage1", "epochs": 10, "seconds": 8.21, "images_per_second": 3.25},
        ],
        "versions": {"python": "3.11.7", "device_count": 8},
        "per_class": [],
    }


def test_the_keys_stand_in_the_order_that_the_files_have_always_had():
    written = report().to_json()
    assert list(written) == [
        *("config", "dataset", "teacher", "student", "bytes_per_image", "default_rate", "rates", "encoder"),
        *("evaluation", "alternatives", "stages", "versions", "per_class"),
    ]
    assert list(written["student"]) == [
        *("name", "top1", "top5", "images", "top1_interval95", "bits", "latent_shape", "top1_drop_points", "classes"),
        *("float_top1", "tables_from"),
    ]
    assert list(written["teacher"]) == ["name", "top1", "top5", "images", "top1_interval95", "classes"]


def test_without_a_student_what_it_adds_is_null():
    written = report(student=None, files=()).to_json()
    assert (written["student"], written["encoder"], written["default_rate"], written["rates"]) == (None, None, None, [])
    assert written["bytes_per_image"] == {"latent_payload": None, "jpeg": 1008.0, "saving_percent": None}
    assert [row["method"] for row in written["alternatives"]] == ["local"]


def test_without_a_teacher_there_is_no_drop():
    written = report(teacher=None, files=()).to_json()
    assert written["teacher"] is None
    assert written["student"]["top1_drop_points"] is None
    assert [row["method"] for row in written["alternatives"]] == ["student"]


def test_a_report_without_any_network_is_refused():
    with pytest.raises(ValueError, match="neither a teacher nor a student"):
        report(teacher=None, student=None)


@pytest.mark.parametrize("value", [-0.1, 100.1, float("nan")])
@pytest.mark.parametrize("key", ["top1", "top5"])
def test_an_accuracy_that_is_no_percentage_is_refused(key, value):
    with pytest.raises(ValueError, match=f"{key} of resnet50-3ch is {value}, not a percentage"):
        report(student={key: value})


def test_array_scalars_and_tuples_become_plain_values():
    values = {1: (np.float32(0.5), np.arange(2)), "dtype": np.dtype("int8"), "none": None}
    assert plain_values(values) == {"1": [0.5, [0, 1]], "dtype": "int8", "none": None}


def test_versions_name_the_libraries_and_the_device():
    found = versions()
    assert list(found) == ["python", "jax", "flax", "optax", "numpy", "bottlefit_jax", "device", "device_count"]
    assert found["numpy"] == np.__version__
    assert found["device"] == "cpu"


def test_without_labels_agreement_takes_the_place_of_accuracies_and_no_key_is_missing():
    values, with_labels = report(agreement=True).to_json(), report().to_json()
    assert values["evaluation"] == {"measure": "agreement", "images": 1000, "chance_percent": 10.0}
    for key in ("teacher", "student"):
        assert with_labels[key].keys() <= values[key].keys()
        assert (values[key]["top1"], values[key]["top5"], values[key]["top1_interval95"]) == (None, None, None)
    student = values["student"]
    assert (student["agreement"], student["float_agreement"], student["top1_drop_points"]) == (98.2, 98.4, None)
    assert student["agreement_interval95"] == with_labels["student"]["top1_interval95"]
    assert "agreement_drop_points" not in student
    assert [rate["agreement"] for rate in values["rates"]] == [98.3, 98.3, 98.2]
    assert {row["top1"] for row in values["rates"] + values["alternatives"]} == {None}
