import json
import pathlib

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.training.network_meta import NetworkMeta

PATH = pathlib.Path("runs/student")
OLD = {"name": "resnet18", "num_classes": 2, "bottleneck": None, "labels": [["a", "b"], ["c"]], "format": 1}
META = NetworkMeta(
    name="resnet18",
    num_classes=2,
    bottleneck={"channels": 3, "image_size": [32, 48]},
    labels=(("a", "b"), ("c",)),
    options={"width": 8},
    image_size=32,
    resize=36,
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    num_batches_tracked={"bn1.num_batches_tracked": 7},
    source={"file": "x.pth", "sha256": "00"},
    digest="abc",
)


def test_a_description_is_the_same_after_its_file():
    assert NetworkMeta.from_json(json.loads(json.dumps(META.to_json())), PATH) == META


def test_the_file_has_the_keys_of_earlier_versions():
    assert META.to_json() == {
        "format": 1,
        "name": "resnet18",
        "num_classes": 2,
        "bottleneck": {"channels": 3, "image_size": [32, 48]},
        "labels": [["a", "b"], ["c"]],
        "options": {"width": 8},
        "image_size": 32,
        "resize": 36,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "num_batches_tracked": {"bn1.num_batches_tracked": 7},
        "source": {"file": "x.pth", "sha256": "00"},
        "digest": "abc",
    }


def test_keys_that_older_files_lack_have_defaults_and_unknown_keys_are_ignored():
    meta = NetworkMeta.from_json({**OLD, "later": 1}, PATH)
    assert meta == NetworkMeta(name="resnet18", num_classes=2, bottleneck=None, labels=(("a", "b"), ("c",)))
    assert (meta.options, meta.image_size, meta.resize, meta.source, meta.digest) == ({}, 0, 0, None, "")
    assert (meta.mean, meta.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert set(meta.to_json()) == {*OLD, "options", "image_size", "resize", "mean", "std", "digest"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "its name is 3, not a model's name"),
        ({"num_classes": 0}, "its num_classes is 0, not an integer from 1 up"),
        ({"num_classes": True}, "its num_classes is True, not an integer from 1 up"),
        ({"bottleneck": 3}, "its bottleneck is 3, not a dictionary or null"),
        ({"labels": ["a"]}, "its labels is ['a'], not a list with a list of names for each class"),
        ({"labels": [[]]}, "its labels is [[]], not a list with a list of names for each class"),
        ({"options": None}, "its options is None, not a dictionary"),
        ({"image_size": "32"}, "its image_size is '32', not an integer from 0 up"),
        ({"mean": [0.5, 0.5]}, "its mean is [0.5, 0.5], not three numbers from 0 to 1"),
        ({"std": [0, 1, 1]}, "its std is [0, 1, 1], not three numbers above 0 and at most 1"),
        ({"num_batches_tracked": {"a": 0.5}}, "its num_batches_tracked is {'a': 0.5}, not a dictionary of integers"),
        ({"source": "x.pth"}, "its source is 'x.pth', not a dictionary of strings"),
    ],
)
def test_a_damaged_value_is_one_line_that_names_the_file(changes, message):
    with pytest.raises(UserError) as caught:
        NetworkMeta.from_json({**OLD, **changes}, PATH)
    assert str(caught.value) == f"runs/student is damaged: {message}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "is damaged: its description is [], not a dictionary"),
        ({"name": "x"}, "does not hold a finished network: nothing in it says num_classes, bottleneck, labels"),
        ({**OLD, "format": 2}, "was written by a later version: its format is 2, not 1"),
    ],
)
def test_what_describes_no_network_is_one_line(values, message):
    with pytest.raises(UserError) as caught:
        NetworkMeta.from_json(values, PATH)
    assert str(caught.value) == f"runs/student {message}"
