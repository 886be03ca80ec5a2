"""A dataset's classes are matched to a teacher's by WordNet id or by name."""

import numpy as np
import pytest

from bottlefit_jax.data import match_labels, read_labels
from bottlefit_jax.errors import UserError
from tests.data.images import SHARED

TEACHER = (
    ("n01440764", "tench", "Tinca tinca"),
    ("n02012849", "crane"),
    ("n03126707", "crane"),
    ("n03394916", "French horn"),
)


def test_classes_match_by_wnid_or_name_in_any_case():
    matched = match_labels(["french_horn", "TENCH", "n03126707", "tinca Tinca"], TEACHER)
    assert matched.dtype == np.int32
    assert matched.tolist() == [3, 0, 2, 0]


def test_teacher_labels_may_be_plain_names():
    assert match_labels(["b", "A"], ["a", "B"]).tolist() == [1, 0]


def test_every_unmatched_class_is_listed():
    with pytest.raises(UserError, match="4 labels: dog, cat") as error:
        match_labels(["dog", "tench", "cat"], TEACHER)
    assert "tench" not in str(error.value)


def test_a_name_of_several_classes_is_ambiguous():
    with pytest.raises(UserError, match="wnid: crane"):
        match_labels(["crane"], TEACHER)


def test_labels_file_has_wnids_or_names(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("n01440764 tench, Tinca tinca\nn03394916\nFrench horn, horn\n\n")
    assert read_labels(str(path)) == (("n01440764", "tench", "Tinca tinca"), ("n03394916",), ("French horn", "horn"))


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("a\n\nb\n", "line 2 is empty")])
def test_an_invalid_labels_file_is_an_error_with_its_name(tmp_path, text, message):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(str(path))


def test_a_missing_labels_file_is_an_error_with_its_name():
    with pytest.raises(UserError, match="no/such"):
        read_labels("no/such")


def test_imagenette_is_in_imagenet():
    path = SHARED / "ilsvrc_val1300" / "synset_words.txt"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    labels = read_labels(str(path))
    assert len(labels) == 1000
    wnids = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]
    assert match_labels(wnids, labels).tolist() == [0, 217, 482, 491, 497]
