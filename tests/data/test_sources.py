import ast
import pathlib
import pickle
import shutil

import numpy as np
import pytest

import bottlefit_jax.data
from bottlefit_jax.data import check_images, open_source
from bottlefit_jax.errors import UserError
from tests.data.images import SHARED, encode, noise, truncate


def test_digits_have_two_fixed_splits_of_all_classes():
    train, val = (open_source("digits", split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1442, 355)
    assert train.class_names == tuple("0123456789")
    counts = np.bincount([val[index]["label"] for index in range(len(val))], minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 36
    again = open_source("digits", split="val")
    np.testing.assert_array_equal(val[3]["image"], again[3]["image"])


def test_digits_are_32_px_grey_with_the_scans_range():
    image = open_source("digits", split="train")[0]["image"]
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert image.min() == 0
    assert image.max() > 200
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_folder_is_in_sorted_order_with_labels(folder):
    source = open_source("folder", split="val", root=str(folder))
    assert source.class_names == ("ant", "bee")
    assert len(source) == 10
    assert [source[index]["label"] for index in range(10)] == [0] * 5 + [1] * 5
    assert source.image_name(2) == str(folder / "val" / "ant" / "02.png")
    np.testing.assert_array_equal(source[2]["image"], noise(46, 50, seed=102))
    with pytest.raises(IndexError):
        source[10]


def test_folder_reads_every_suffix_and_ignores_the_rest(folder):
    for name in ("a.JPEG", "b.JPG", "c.jpeg", "d.png", "e.PNG"):
        (folder / "train" / "ant" / name).write_bytes(encode(noise(30, 20, seed=1)))
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (folder / "train" / "ant" / name).write_text("nothing")
    assert len(open_source("folder", split="train", root=str(folder))) == 12 + 5


def test_sources_survive_pickling(folder):
    for source in (open_source("digits", split="val"), open_source("folder", split="val", root=str(folder))):
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy[4]["image"], source[4]["image"])
        assert copy.class_names == source.class_names


def broken(folder, what):
    if what == "class without images":
        for file in (folder / "val" / "bee").iterdir():
            file.unlink()
    elif what == "other classes":
        (folder / "val" / "bee").rename(folder / "val" / "wasp")
    elif what == "empty split":
        shutil.rmtree(folder / "val")
        (folder / "val").mkdir()
    elif what == "no val":
        shutil.rmtree(folder / "val")
    elif what == "missing":
        shutil.rmtree(folder)
    elif what == "empty":
        shutil.rmtree(folder)
        folder.mkdir()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("class without images", "val/bee' holds no image"),
        ("other classes", "same classes; unpaired: train/bee, val/wasp"),
        ("empty split", "val' is empty"),
        ("no val", "has no val/"),
        ("missing", "does not exist"),
        ("empty", "has no train/"),
    ],
)
def test_bad_folder_is_found_at_opening(folder, what, message):
    broken(folder, what)
    for split in ("train", "val"):
        with pytest.raises(UserError, match=message) as error:
            open_source("folder", split=split, root=str(folder))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "split 'test'"),
        ({"split": "val", "on_bad_image": "ignore"}, "on_bad_image 'ignore'"),
        ({"split": "val"}, "needs a root"),
    ],
)
def test_bad_argument_is_quoted(arguments, message):
    with pytest.raises(UserError, match=message):
        open_source("folder", **arguments)


def test_unprepared_set_says_the_command(tmp_path):
    with pytest.raises(UserError, match=r"bottlefit_jax\.prepare --name imagenette/160px-v2 --data_dir ") as error:
        open_source("imagenette/160px-v2", split="train", root=str(tmp_path))
    assert "\n" not in str(error.value)


def test_check_names_every_truncated_image(folder):
    for name in ("ant/00.jpg", "bee/02.png"):
        truncate(folder / "train" / name)
    source = open_source("folder", split="train", root=str(folder))
    with pytest.raises(UserError, match="2 of 12 images") as error:
        check_images(source)
    assert str(folder / "train" / "ant" / "00.jpg") in str(error.value)
    assert str(folder / "train" / "bee" / "02.png") in str(error.value)
    assert "\n" not in str(error.value)


def test_check_marks_what_the_source_skips(folder):
    truncate(folder / "train" / "bee" / "01.JPEG")
    source = open_source("folder", split="train", root=str(folder), on_bad_image="skip")
    assert source.bad_images() == ()
    assert check_images(source) == 12
    assert source.bad_images() == (str(folder / "train" / "bee" / "01.JPEG"),)


def test_check_accepts_trailing_bytes_and_other_formats(folder):
    (folder / "val" / "ant" / "z.jpg").write_bytes(encode(noise(30, 20, seed=1)) + b"\0" * 40)
    (folder / "val" / "ant" / "z.bmp").write_bytes(encode(noise(30, 20, seed=1), "BMP"))
    (folder / "val" / "ant" / "gif.jpg").write_bytes(encode(noise(30, 20, seed=1), "WEBP"))
    assert check_images(open_source("folder", split="val", root=str(folder))) == 13


def test_check_leaves_large_folders_to_the_loader(folder):
    truncate(folder / "train" / "ant" / "00.jpg")
    assert check_images(open_source("folder", split="train", root=str(folder)), at_most=11) == 0


def test_empty_file_is_named(folder):
    (folder / "train" / "ant" / "00.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"00\.jpg"):
        check_images(open_source("folder", split="train", root=str(folder)))


def test_every_file_of_imagenette_is_checked():
    root = SHARED / "imagenette160"
    if not root.exists():
        pytest.skip(f"{root} is not on this machine")
    assert sum(check_images(open_source("folder", split=s, root=str(root))) for s in ("train", "val")) == 13385


def test_room_imports_no_jax_of_its_own():
    files = list(pathlib.Path(bottlefit_jax.data.__file__).parent.glob("*.py"))
    assert len(files) > 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"jax", "flax", "ml_collections", "tensorflow"}, path
