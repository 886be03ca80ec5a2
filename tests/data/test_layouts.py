"""Folders in other layouts: numbers as names, links, subfolders, tables, forms of Unicode, names that are not UTF-8."""

import os
import unicodedata

import numpy as np
import pytest

from bottlefit_jax.data import (
    check_images,
    class_columns,
    describe_order,
    eval_batches,
    match_labels,
    open_source,
    read_labels,
    tfds_writer,
)
from bottlefit_jax.errors import UserError
from tests.data.images import encode, make_folder, noise
from tests.images.files import UPRIGHT, turned, unreadable

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
NUMBERS = [str(number) for number in range(1, 12)]


def open_folder(root, split="val", **options):
    return open_source("folder", split=split, root=str(root), **options)


def test_numbers_sort_as_text_and_then_weights_without_labels_are_an_error(tmp_path):
    source = open_folder(make_folder(tmp_path, classes=NUMBERS, train=1, val=1))
    assert source.class_names == tuple(sorted(NUMBERS))
    with pytest.raises(UserError, match=r"as text \(1, 10, 11, 2, 3, \.\.\.\) and as numbers \(1, 2, 3, 4, 5, \."):
        class_columns(source.class_names, (), 11)
    assert class_columns(source.class_names, [[name] for name in NUMBERS], 11) == (0, 9, 10, *range(1, 9))


@pytest.mark.parametrize(
    "names",
    [("1", "2", "3"), ("01", "02", "10"), ("ant", "bee"), ("n01440764", "n02102040"), ("b", "a"), ("2", "10", "1")],
)
def test_an_unambiguous_order_needs_no_labels(names):
    assert class_columns(names, (), len(names)) is None


@pytest.mark.parametrize("names", [("class1", "class10", "class2"), ("v1.10", "v1.9")])
def test_numbers_within_names_are_ambiguous_too(names):
    with pytest.raises(UserError, match="do not name their classes"):
        class_columns(names, (), len(names))


def test_the_assumed_order_is_described():
    assert describe_order(["ant", "bee"]).endswith("their outputs are taken to be 0 'ant', 1 'bee'")
    assert describe_order([str(n) for n in range(9)]).endswith("3 '3', 4 '4', ...")


def test_a_prepared_set_keeps_its_order(tmp_path):
    root = make_folder(tmp_path / "images", classes=NUMBERS, train=1, val=1)
    tfds_writer.write_folder_set(str(root), "numbers", data_dir=str(tmp_path))
    assert open_source("numbers", split="val", root=str(tmp_path)).class_names == open_folder(root).class_names


def test_what_is_left_out_is_counted_and_named(folder):
    ant = folder / "train" / "ant"
    (ant / "notes.txt").touch()
    (ant / "Thumbs.db").touch()
    (ant / "old").mkdir()
    (folder / "train" / "stray.jpg").write_bytes(encode(noise(8, 8, seed=0)))
    for hidden in ("._00.jpg", ".DS_Store"):
        (ant / hidden).touch()
    (folder / "train" / ".cache").mkdir()
    source = open_folder(folder, "train")
    assert len(source) == 12
    assert source.left_out() == (
        "1 beside the class folders, first stray.jpg; 2 without an image's suffix, first ant/Thumbs.db; "
        "1 folders within a class, first ant/old"
    )
    assert open_folder(folder).left_out() == ""


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_broken_link_is_an_error_or_is_skipped_and_counted(folder, split):
    link = folder / split / "ant" / "01.png"
    link.symlink_to(folder / "gone.png")
    with pytest.raises(UserError, match=r"1 of \d+ images .*01\.png: cannot be read \(a broken link\)"):
        check_images(open_folder(folder, split))
    source = open_folder(folder, split, on_bad_image="skip")
    check_images(source)
    assert source.bad_images() == (str(link),)


def test_a_class_that_is_a_broken_link_is_an_error_or_is_counted(folder):
    (folder / "val" / "cat").symlink_to(folder / "gone")
    with pytest.raises(UserError, match=r"val/cat is a broken link"):
        open_folder(folder)
    assert open_folder(folder, on_bad_image="skip").left_out() == "1 beside the class folders, first cat"


def test_links_to_images_and_to_classes_are_followed(folder, tmp_path):
    (folder / "val" / "bee" / "z.jpg").symlink_to(folder / "val" / "ant" / "00.jpg")
    (tmp_path / "linked").mkdir()
    for split in ("train", "val"):
        (tmp_path / "linked" / split).symlink_to(folder / split)
    source = open_folder(tmp_path / "linked")
    assert (len(source), check_images(source)) == (11, 11)


def test_tiny_imagenets_layout_has_an_inner_folder(folder):
    expected = [open_folder(folder, "train")[index]["image"] for index in range(12)]
    for name in ("ant", "bee"):
        folder.joinpath("train", name).rename(folder / "images")
        folder.joinpath("train", name).mkdir()
        (folder / "images").rename(folder / "train" / name / "images")
        (folder / "train" / name / f"{name}_boxes.txt").touch()
    source = open_folder(folder, "train")
    assert source.image_name(0) == str(folder / "train" / "ant" / "images" / "00.jpg")
    for index, image in enumerate(expected):
        np.testing.assert_array_equal(source[index]["image"], image)
    assert source.left_out() == "2 without an image's suffix, first ant/images/ant_boxes.txt"


def test_classes_are_the_same_in_every_form_of_unicode(tmp_path):
    make_folder(tmp_path, classes=("dog", NFC))
    (tmp_path / "val" / NFC).rename(tmp_path / "val" / NFD)
    source = open_folder(tmp_path)
    assert source.class_names == open_folder(tmp_path, "train").class_names == (NFC, "dog")
    assert check_images(source) == 10
    assert match_labels([NFD], [NFC]).tolist() == match_labels([NFC], [NFD.upper()]).tolist() == [0]
    (tmp_path / "val" / NFC).mkdir()
    (tmp_path / "val" / NFC / "x.png").touch()
    with pytest.raises(UserError, match="class 'café' twice"):
        open_folder(tmp_path)


def test_names_that_are_not_utf8_are_shown_printable(folder):
    for split in ("train", "val"):
        os.rename(folder / split / "ant", os.fsencode(folder / split) + b"/caf\xe9")
    os.rename(os.fsencode(folder / "val") + b"/caf\xe9/00.jpg", os.fsencode(folder / "val") + b"/caf\xe9/\xff.jpg")
    source = open_folder(folder)
    assert source.class_names == ("bee", r"caf\xe9")
    shown = [source.image_name(index) for index in range(len(source))]
    assert "\n".join(shown).encode().endswith(rb"val/caf\xe9/\xff.jpg")
    assert check_images(source) == 10
    with open(source.path(9), "wb"):
        pass
    with pytest.raises(UserError) as error:
        check_images(source)
    assert rb"val/caf\xe9/\xff.jpg: truncated" in str(error.value).encode()


def test_a_table_beside_the_splits_is_not_read(folder):
    (folder / "labels.csv").write_text("id,breed\n1,pug\n")
    assert open_folder(folder).class_names == ("ant", "bee")
    assert len(open_folder(folder, "train")) == 12


@pytest.fixture
def labelled(tmp_path):
    (tmp_path / f"{NFD}.jpg").write_bytes(encode(noise(20, 30, seed=0)))
    (tmp_path / "synset_words.txt").write_bytes(b"\xef\xbb\xbfcat\r\n")
    (tmp_path / "labels.csv").write_bytes(f"\ufefffilename,class_index\r\n{NFC}.jpg,0\r\n".encode())
    return tmp_path


def test_tables_may_begin_with_a_byte_order_mark_and_have_another_form_of_unicode(labelled):
    source = open_folder(labelled)
    assert source.class_names == ("cat",)
    assert source.image_name(0) == str(labelled / f"{NFD}.jpg")
    assert check_images(source) == 1
    assert read_labels(str(labelled / "synset_words.txt")) == (("cat",),)


def test_missing_images_of_a_table_are_an_error_of_the_check(labelled):
    with open(labelled / "labels.csv", "a") as table:
        table.write("gone.jpg,0\n")
    (labelled / "more.jpg").touch()
    with pytest.raises(UserError, match=r"1 of 2 images .*gone\.jpg: cannot be read \(No such file"):
        check_images(open_folder(labelled))
    source = open_folder(labelled, on_bad_image="skip")
    assert source.left_out() == "1 not named in labels.csv, first more.jpg"
    (batch,) = eval_batches(source, batch_size=2, image_size=8)
    assert batch["mask"].tolist() == [True, False]


@pytest.mark.parametrize("kind", ["baseline, second half gone", "progressive, 512 bytes gone", "png, half of the rows"])
def test_damage_in_the_middle_is_an_error_or_is_skipped_and_counted(folder, kind):
    path = folder / "train" / "bee" / "00.jpg"
    path.write_bytes(unreadable()[kind])
    with pytest.raises(UserError, match=r"1 of 12 images .*bee/00\.jpg: truncated, damaged"):
        check_images(open_folder(folder, "train"))
    source = open_folder(folder, "train", on_bad_image="skip")
    check_images(source)
    assert source.bad_images() == (str(path),)


def test_a_folder_too_large_to_decode_is_checked_by_the_ends_of_its_files(folder):
    (folder / "train" / "bee" / "00.jpg").write_bytes(unreadable()["baseline, second half gone"])
    assert check_images(open_folder(folder, "train"), decode_bytes=1000) == 12
    (folder / "train" / "bee" / "00.jpg").write_bytes(unreadable()["jpeg, no end marker"])
    with pytest.raises(UserError, match=r"bee/00\.jpg: truncated"):
        check_images(open_folder(folder, "train"), decode_bytes=1000)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_prepared_set_keeps_the_bytes_and_its_image_is_upright(tmp_path, orientation):
    for split in ("train", "val"):
        (tmp_path / "images" / split / "ant").mkdir(parents=True)
        (tmp_path / "images" / split / "ant" / "x.jpg").write_bytes(turned(orientation, "JPEG"))
    tfds_writer.write_folder_set(str(tmp_path / "images"), "ants", data_dir=str(tmp_path))
    source = open_source("ants", split="val", root=str(tmp_path))
    assert source.read(0)[0] == turned(orientation, "JPEG")
    squares = np.asarray(source[0]["image"])[8::16, 8::16, 0].astype(int)
    assert np.abs(squares - UPRIGHT[orientation]).max() <= 2


def test_preparing_prints_what_it_leaves_out(folder, tmp_path, capsys):
    (folder / "val" / "ant" / "notes.txt").touch()
    tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path / "data"))
    assert capsys.readouterr().err == "left out of val: 1 without an image's suffix, first ant/notes.txt\n"
