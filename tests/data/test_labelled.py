"""Evaluation images in one folder with a table of their classes."""

import pytest

from bottlefit_jax.data import open_source
from bottlefit_jax.errors import UserError
from tests.data.images import encode, noise

NAMES = "n00000001 ant, emmet\nn00000002 bee\nn00000003 cat\n"
TABLE = "filename,class_index,wnid\nb.JPEG,2,n00000003\na.JPEG,0,n00000001\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "synset_words.txt").write_text(NAMES)
    (tmp_path / "labels.csv").write_text(TABLE)
    for seed, name in enumerate(("a.JPEG", "b.JPEG", "unnamed.JPEG")):
        (tmp_path / name).write_bytes(encode(noise(20, 30, seed=seed)))
    return tmp_path


def open_val(root):
    return open_source("folder", split="val", root=str(root))


def test_images_are_in_the_order_of_the_table_and_classes_in_the_order_of_the_names(root):
    source = open_val(root)
    assert source.class_names == ("n00000001", "n00000002", "n00000003")
    assert [source[index]["label"] for index in range(len(source))] == [2, 0]
    assert source.image_name(0) == str(root / "b.JPEG")
    assert source[0]["image"].shape == (20, 30, 3)


def test_one_of_the_two_columns_is_enough(root):
    for table in ("filename,class_index\nb.JPEG,2\na.JPEG,0\n", "filename,wnid\nb.JPEG,n00000003\na.JPEG,n00000001\n"):
        (root / "labels.csv").write_text(table)
        source = open_val(root)
        assert [source[index]["label"] for index in range(2)] == [2, 0]
    (root / "synset_words.txt").unlink()
    source = open_val(root)
    assert source.class_names == ("n00000001", "n00000003")
    assert [source[index]["label"] for index in range(2)] == [1, 0]


def test_there_is_no_training_split(root):
    with pytest.raises(UserError, match=r"is for evaluation; training needs train/CLASS"):
        open_source("folder", split="train", root=str(root))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "it needs filename, and class_index or wnid"),
        ("filename,colour\na.JPEG,red\n", "has the columns filename, colour; it needs"),
        ("filename,wnid\n", "names no image"),
        ("filename,wnid\na.JPEG\n", "line 2 does not have 2 fields"),
        ("filename,wnid\na.JPEG,n00000009\n", "line 2 has class n00000009, which is not one of the 3 classes"),
        ("filename,class_index\na.JPEG,3\n", "line 2 has class 3, which is not one of the 3 classes"),
        ("filename,class_index\na.JPEG,-1\n", "line 2 has class -1"),
        ("filename,class_index,wnid\na.JPEG,1,n00000001\n", "line 2 has class 1 n00000001"),
    ],
)
def test_an_invalid_table_is_an_error_with_its_line(root, table, message):
    (root / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        open_val(root)


def test_indices_without_names_and_missing_images_are_errors(root):
    (root / "a.JPEG").unlink()
    with pytest.raises(UserError, match=r"a\.JPEG: cannot be read"):
        open_val(root)[1]
    (root / "labels.csv").write_text("filename,class_index\nb.JPEG,2\n")
    (root / "synset_words.txt").unlink()
    with pytest.raises(UserError, match=r"has no wnid, so the classes need .*synset_words\.txt"):
        open_val(root)
