"""Images without labels: which files of a tree are taken, what is held out, and how they join labelled images."""

import os
from typing import Any

import numpy as np
import pytest

from bottlefit_jax.data import check_images, eval_batches, open_images, open_source, train_batches
from bottlefit_jax.data.unlabelled import NO_LABEL, Unlabelled
from bottlefit_jax.errors import UserError
from tests.data.images import encode, make_folder, noise, truncate


@pytest.fixture
def frames(tmp_path):
    """A tree of 22 images: some at its root, some nested, one folder linked, and files that are no images."""
    root, elsewhere = tmp_path / "frames", tmp_path / "elsewhere"
    for number, name in enumerate(["", "a/deep/er", "b", "../elsewhere"]):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(7 if number == 3 else 5):
            (root / name / f"{index}.jpg").write_bytes(encode(noise(40, 44, seed=10 * number + index)))
    (root / "linked").symlink_to(elsewhere)
    (root / "b" / "again").symlink_to(root)  # a circle
    (root / "notes.txt").touch()
    (root / ".hidden.jpg").touch()
    return root


def paths(source, root):
    return [os.path.relpath(source.path(index), root) for index in range(len(source))]


def test_a_tree_gives_each_of_its_images_once_in_the_order_of_their_paths(frames):
    source = Unlabelled([str(frames)], split="train")
    expected = [f"{index}.jpg" for index in range(5)]
    expected += [f"{folder}/{index}.jpg" for folder in ("a/deep/er", "b") for index in range(5)]
    assert paths(source, frames) == [*expected, *(f"linked/{index}.jpg" for index in range(7))]
    assert source.left_out() == f"1 without an image's suffix, first {frames / 'notes.txt'}"
    assert {source[index]["label"] for index in range(len(source))} == {NO_LABEL}
    assert check_images(source) == 22


def test_one_image_in_ten_is_held_out_where_nothing_else_is_there_to_evaluate_on(frames):
    every = paths(Unlabelled([str(frames)], split="train"), frames)
    train, held_out = (open_images(split, name="", unlabelled=[str(frames)]) for split in ("train", "val"))
    assert paths(held_out, frames) == every[9::10]
    assert sorted(paths(train, frames) + paths(held_out, frames)) == sorted(every)
    labelled = held_out.with_labels(np.asarray([3, 1]), ("a", "b", "c", "d"))
    assert [labelled[index]["label"] for index in range(2)] == [3, 1]
    assert held_out[0]["label"] == NO_LABEL


def test_they_join_labelled_images_and_all_of_them_are_trained_on(frames, tmp_path):
    images = str(make_folder(tmp_path / "set"))
    chosen = {"name": "folder", "root": images, "unlabelled": [str(frames)]}
    joined, labelled = open_images("train", **chosen), open_source("folder", split="train", root=images)
    assert (len(joined), joined.class_names) == (len(labelled) + 22, ("ant", "bee"))
    assert [joined[index]["label"] for index in range(len(joined))] == [0] * 6 + [1] * 6 + [NO_LABEL] * 22
    assert joined.image_name(12) == str(frames / "0.jpg")
    assert joined.image_name(11) == labelled.image_name(11)
    assert len(open_images("val", **chosen)) == 10
    other = open_images("val", name="digits", eval_name="folder", eval_root=images)
    assert other.class_names == ("ant", "bee")
    assert len(open_images("train", name="", unlabelled=[str(frames)], eval_name="folder", eval_root=images)) == 22


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_of_joined_images_are_the_same_from_any_step_with_any_number_of_workers(frames, tmp_path, workers):
    images = str(make_folder(tmp_path / "set"))
    source = open_images("train", name="folder", root=images, unlabelled=[str(frames)])
    options: dict[str, Any] = {"batch_size": 8, "image_size": 16, "seed": 3}
    batches = train_batches(source, workers=1, **options)
    whole = [next(batches) for _ in range(7)]
    resumed = train_batches(source, workers=workers, start_step=5, **options)
    for expected in whole[5:]:
        np.testing.assert_equal(next(resumed), expected)


def test_a_bad_image_is_named_or_skipped_in_either_part(frames, tmp_path):
    images = make_folder(tmp_path / "set")
    victims = [images / "train" / "bee" / "01.JPEG", frames / "b" / "3.jpg"]
    for victim in victims:
        truncate(victim)
    chosen = {"name": "folder", "root": str(images), "unlabelled": [str(frames)]}
    with pytest.raises(UserError, match=r"1 of 12 images cannot be decoded: .*bee/01.JPEG"):
        check_images(open_images("train", **chosen))
    source = open_images("train", **chosen, on_bad_image="skip")
    assert check_images(source) == 34
    assert source.bad_images() == tuple(map(str, victims))
    again = open_images("train", **chosen, on_bad_image="skip")
    masks = np.concatenate([b["mask"] for b in eval_batches(again, batch_size=34, image_size=16, workers=0)])
    assert masks.sum() == 32
    assert again.bad_images() == source.bad_images()


def test_empty_and_unreadable_folders_are_named(frames, tmp_path):
    empty = tmp_path / "empty"
    (empty / "within").mkdir(parents=True)
    (empty / "within" / "notes.txt").touch()
    with pytest.raises(UserError, match=rf"unlabelled folder '{empty}' holds no image \(looked for .*\.jpg"):
        Unlabelled([str(frames), str(empty)], split="train")
    with pytest.raises(UserError, match=r"unlabelled folder '/nowhere' cannot be read: no such file or directory"):
        Unlabelled(["/nowhere"], split="train")
    with pytest.raises(UserError, match=r"notes.txt' cannot be read: not a directory"):
        Unlabelled([str(frames / "notes.txt")], split="train")
    with pytest.raises(UserError, match=r"frames/b/\.\.' is given twice|frames' is given twice"):
        Unlabelled([str(frames), str(frames / "b" / "..")], split="train")
    for index in range(2, 5):
        (frames / "a" / "deep" / "er" / f"{index}.jpg").unlink()
    with pytest.raises(UserError, match=r"frames/a': 2 images are too few to hold out one in 10 for evaluation"):
        open_images("val", name="", unlabelled=[str(frames / "a")])
    with pytest.raises(UserError, match=r"there are no train images"):
        open_images("train", name="", eval_name="digits")
