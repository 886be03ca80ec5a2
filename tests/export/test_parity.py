"""Which results of the parity check make an export fail, and what is printed and written."""

import dataclasses
import json

import pytest

from export.parity import FileParity, Parity

FILES = ("head.tflite", "head.onnx", "tail.onnx", "tail.stablehlo", "local.tflite")
GOOD = Parity(
    images=200,
    head="float32",
    flax={"top1": 90.0, "top5": 99.0},
    flax_float={"top1": 90.5, "top5": 99.0},
    flax_sent={"top1": 89.5, "top5": 99.0},
    raw={"bytes": 75, "top1": 89.0, "top5": 98.5},
    bundle={"top1": 88.75, "top5": 98.5},
    agreement_percent=99.5,
    agreement_with_training_percent=98.0,
    files={name: FileParity(bytes=1000, milliseconds=0.25, largest_difference=1e-5) for name in FILES},
    rates=[
        {"id": "lossless", "steps": [1, 1, 1], "bytes_mean": 60.25, "bytes_p95": 70, "top1": 89.0, "top5": 98.5},
        {"id": "within-0.3", "steps": [8, 8, 12], "bytes_mean": 30.5, "bytes_p95": 40, "top1": 88.75, "top5": 98.5},
    ],
    default_rate="within-0.3",
    local={"top1": 89.5, "top5": 99.0, "agreement_percent": 100.0},
)
INT8 = dataclasses.replace(GOOD, head="int8", raw={"bytes": 75, "top1": 89.5, "top5": 98.0}, agreement_percent=90.0)


def with_difference(name, difference, parity=GOOD):
    file = dataclasses.replace(parity.files[name], largest_difference=difference)
    return dataclasses.replace(parity, files={**parity.files, name: file})


@pytest.mark.parametrize(
    "parity",
    [
        GOOD,
        INT8,
        dataclasses.replace(GOOD, local=None),
        with_difference("head.tflite", 3.0, INT8),  # steps
        with_difference("head.tflite", 0.02, dataclasses.replace(GOOD, head="float16")),
        with_difference("local.tflite", 0.02),  # its weights may be float16
    ],
)
def test_a_bundle_that_follows_the_network_has_no_failures(parity):
    assert parity.failures() == []


@pytest.mark.parametrize(
    ("parity", "message"),
    [
        (
            dataclasses.replace(GOOD, agreement_percent=98.5),
            "head and tail give the class that Flax gives for 98.50 % of 200 images, less than 99 %",
        ),
        (with_difference("head.tflite", 2e-3), "head.tflite is off by 2.0e-03 of the largest value"),
        (with_difference("tail.onnx", 2e-3, INT8), "tail.onnx is off by 2.0e-03 of the largest value"),
        (
            dataclasses.replace(INT8, raw={"bytes": 75, "top1": 89.0, "top5": 98.0}),
            "the int8 head loses 1.00 points of top-1 on 200 images",
        ),
        (
            dataclasses.replace(GOOD, local={"top1": 80.0, "top5": 99.0, "agreement_percent": 98.0}),
            "local.tflite gives Flax's class for 98.00 % of the images",
        ),
    ],
)
def test_a_failure_quotes_the_number(parity, message):
    assert parity.failures() == [message]


def test_the_table_has_a_line_for_each_file():
    lines = with_difference("head.tflite", 3.0, INT8).table().splitlines()
    assert lines[1].split() == ["head.tflite", "1,000", "0.25", "3", "steps", "of", "255"]
    assert [line.split()[0] for line in lines[1:6]] == list(FILES)
    assert lines[6:] == [
        "top-1 of 200 images: Flax 90.00 %, with the latents as they are sent 89.50 %, head and tail 89.50 %",
        "head and tail give Flax's class for 90.00 % of them (98.00 % against Flax with the quantiser of the training)",
        "local.tflite: top-1 89.50 %",
        "",
        "rate                   bytes      p95    top-1  steps",
        "raw                     75.0       75    89.50",
        "lossless                60.2       70    89.00  1 1 1",
        "within-0.3              30.5       40    88.75  8 8 12 (default)",
    ]


def test_without_labels_nothing_is_called_top_1(tmp_path):
    parity = dataclasses.replace(GOOD, measure="agreement")
    lines = parity.table().splitlines()
    assert "top-1" not in parity.table()
    assert lines[6].startswith("agreement with the teacher of 200 images: Flax 90.00 %")
    assert lines[8] == "local.tflite: agreement with the teacher 89.50 %"
    assert lines[10:12] == [
        "rate                   bytes      p95    agreement  steps",
        "raw                     75.0       75        89.00",
    ]
    worse = dataclasses.replace(INT8, raw={"bytes": 75, "top1": 89.0, "top5": 98.0}, measure="agreement")
    assert worse.failures() == ["the int8 head loses 1.00 points of agreement with the teacher on 200 images"]
    parity.write(tmp_path / "parity.json")
    assert json.loads((tmp_path / "parity.json").read_text())["measure"] == "agreement"


def test_the_file_has_local_only_if_the_bundle_has(tmp_path):
    GOOD.write(tmp_path / "parity.json")
    assert json.loads((tmp_path / "parity.json").read_text()) == dataclasses.asdict(GOOD)
    dataclasses.replace(GOOD, local=None).write(tmp_path / "parity.json")
    assert "local" not in json.loads((tmp_path / "parity.json").read_text())
