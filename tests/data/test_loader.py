"""Batches depend on source, seed, batch size and step alone; bad images and invalid arguments are one line."""

import itertools

import numpy as np
import pytest

from bottlefit_jax.data import check_images, eval_batches, open_source, steps_per_epoch, train_batches
from bottlefit_jax.errors import UserError
from tests.data.images import make_folder, truncate

TRAIN = {"batch_size": 4, "image_size": 24, "seed": 5}
EVAL = {"batch_size": 4, "image_size": 24, "resize": 28}


def take(iterator, count):
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.fixture
def train(folder):
    return open_source("folder", split="train", root=str(folder))


@pytest.fixture
def val(folder):
    return open_source("folder", split="val", root=str(folder))


def test_batches_have_the_documented_shapes_and_types(train, val):
    (batch,) = take(train_batches(train, **TRAIN), 1)
    assert {key: (value.shape, value.dtype, type(value)) for key, value in batch.items()} == {
        "image": ((4, 24, 24, 3), np.uint8, np.ndarray),
        "label": ((4,), np.int32, np.ndarray),
    }
    batch = next(eval_batches(val, **EVAL))
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "image": ((4, 24, 24, 3), np.uint8),
        "label": ((4,), np.int32),
        "mask": ((4,), np.bool_),
    }


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_threads_do_not_change_the_batches(train, workers):
    assert_same(
        take(train_batches(train, **TRAIN, workers=workers), 7), take(train_batches(train, **TRAIN, workers=0), 7)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_do_not_change_the_batches(train, val, workers):
    processes = {"workers": workers, "worker_type": "process"}
    alone = take(train_batches(train, **TRAIN, workers=0), 7)
    assert_same(take(train_batches(train, **TRAIN, **processes, start_step=2), 5), alone[2:])
    if workers == 2:
        assert_same(list(eval_batches(val, **EVAL, **processes)), list(eval_batches(val, **EVAL)))


def test_a_start_in_the_middle_equals_running_from_zero(train):
    batches = take(train_batches(train, **TRAIN), 9)
    for step in (1, 3, 8):
        assert_same(take(train_batches(train, **TRAIN, start_step=step), 9 - step), batches[step:])


def test_a_start_after_many_epochs_is_immediate(train):
    (late,) = take(train_batches(train, **TRAIN, start_step=10**9), 1)
    assert late["image"].shape == (4, 24, 24, 3)


def test_seeds_differ_in_order_and_crops(train):
    ours = take(train_batches(train, **TRAIN), 3)
    other = take(train_batches(train, **{**TRAIN, "seed": 6}), 3)
    assert not all(np.array_equal(a["label"], b["label"]) for a, b in zip(ours, other, strict=True))
    assert not any(np.array_equal(a["image"], b["image"]) for a, b in zip(ours, other, strict=True))


def test_every_epoch_has_every_image_once_in_another_order():
    source = open_source("digits", split="val")
    steps = steps_per_epoch(source, 71)
    assert steps * 71 == len(source)
    # A crop of all of a square image is that image, so each image can be recognised.
    plain = {"batch_size": 71, "image_size": 32, "seed": 0, "crop_scale": (1.0, 1.0), "flip": False}
    batches = take(train_batches(source, **plain), 2 * steps)
    first, second = ([i.tobytes() for b in part for i in b["image"]] for part in (batches[:steps], batches[steps:]))
    assert first != second
    assert sorted(first) == sorted(second) == sorted(source[i]["image"].tobytes() for i in range(len(source)))


@pytest.mark.parametrize("shard_count", [2, 4])
def test_shards_together_are_the_single_hosts_batches(train, val, shard_count):
    for make, options in ((train_batches, dict(TRAIN, start_step=1)), (eval_batches, EVAL)):
        source = train if make is train_batches else val
        whole = take(make(source, **options), 3)
        shards = [
            take(make(source, **options, shard_index=index, shard_count=shard_count), 3) for index in range(shard_count)
        ]
        joined = [
            {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            for parts in zip(*shards, strict=True)
        ]
        assert_same(joined, whole)


def test_a_shard_decodes_only_its_own_images(train, monkeypatch):
    read, original = [], type(train).read
    monkeypatch.setattr(type(train), "read", lambda self, index: read.append(index) or original(self, index))
    take(train_batches(train, **TRAIN, workers=0, shard_index=1, shard_count=4), 3)
    assert len(read) == 3


def test_evaluation_sees_every_image_once_and_masks_the_rest(val):
    batches = list(eval_batches(val, **EVAL))
    assert [batch["mask"].tolist() for batch in batches] == [[True] * 4, [True] * 4, [True, True, False, False]]
    assert not batches[-1]["image"][2:].any()
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    assert labels.tolist() == [0] * 5 + [1] * 5


def test_evaluation_stops_at_the_limit(val):
    batches = list(eval_batches(val, **EVAL, limit=6))
    assert [int(batch["mask"].sum()) for batch in batches] == [4, 2]
    assert sum(int(b["mask"].sum()) for b in eval_batches(val, **EVAL, limit=600)) == 10


def test_more_processes_than_batches_do_not_change_the_batches(val):
    options = dict(EVAL, limit=3)
    assert_same(
        list(eval_batches(val, **options, workers=2, worker_type="process")), list(eval_batches(val, **options))
    )


def test_steps_drop_the_remainder(train):
    assert steps_per_epoch(train, 5) == 2
    assert steps_per_epoch(train, 12) == 1
    with pytest.raises(UserError, match="batch_size 13 must be from 1 to the 12 images of folder/train"):
        steps_per_epoch(train, 13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 13}, "batch_size 13"),
        ({"shard_count": 3}, "batch_size 4 is not divisible by the 3 shards"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index 2"),
        ({"workers": -1}, "workers -1"),
        ({"worker_type": "fork"}, "worker_type 'fork'"),
        ({"seed": -1}, "seed -1"),
        ({"start_step": -1}, "start_step -1"),
        ({"crop_scale": (0.5, 0.2)}, r"crop_scale \(0.5, 0.2\)"),
        ({"image_size": 0}, "image_size 0"),
    ],
)
def test_an_invalid_training_argument_is_quoted_at_the_call(train, change, message):
    with pytest.raises(UserError, match=message):
        train_batches(train, **{**TRAIN, **change})


@pytest.mark.parametrize(("change", "message"), [({"limit": 0}, "limit 0"), ({"resize": 20}, "resize 20")])
def test_an_invalid_evaluation_argument_is_quoted_at_the_call(val, change, message):
    with pytest.raises(UserError, match=message):
        eval_batches(val, **{**EVAL, **change})


@pytest.mark.parametrize("where", [{"workers": 0}, {"workers": 2}, {"workers": 1, "worker_type": "process"}])
def test_bad_image_stops_with_its_name(folder, where):
    truncate(folder / "val" / "ant" / "03.jpg")
    source = open_source("folder", split="val", root=str(folder))
    with pytest.raises(UserError, match=r"val/ant/03\.jpg: truncated") as error:
        list(eval_batches(source, **EVAL, **where))
    assert type(error.value) is UserError


@pytest.mark.parametrize("where", [{"workers": 0}, {"workers": 2}, {"workers": 1, "worker_type": "process"}])
def test_skipped_image_is_masked_and_counted(folder, where):
    good = list(eval_batches(open_source("folder", split="val", root=str(folder)), **EVAL))
    truncate(folder / "val" / "ant" / "03.jpg")
    source = open_source("folder", split="val", root=str(folder), on_bad_image="skip")
    batches = list(eval_batches(source, **EVAL, **where))
    assert batches[0]["mask"].tolist() == [True, True, True, False]
    assert source.bad_images() == (str(folder / "val" / "ant" / "03.jpg"),)
    np.testing.assert_array_equal(batches[0]["image"][:3], good[0]["image"][:3])
    assert_same(batches[1:], good[1:])


def test_the_next_image_replaces_a_skipped_training_image(folder):
    truncate(folder / "train" / "ant" / "05.png")
    source = open_source("folder", split="train", root=str(folder), on_bad_image="skip")
    options = {"batch_size": 12, "image_size": 24, "seed": 1}
    first = take(train_batches(source, **options), 2)
    assert [np.bincount(batch["label"]).tolist() for batch in first] == [[5, 7], [5, 7]]  # the next is the first bee
    assert source.bad_images() == (str(folder / "train" / "ant" / "05.png"),)
    assert_same(take(train_batches(source, **options, workers=0), 2), first)  # now it is known to be bad
    checked = open_source("folder", split="train", root=str(folder), on_bad_image="skip")
    check_images(checked)
    assert_same(take(train_batches(checked, **options), 2), first)


def test_a_folder_of_bad_images_alone_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "few", classes=("ant",), train=2, val=1)
    for file in (folder / "train" / "ant").iterdir():
        truncate(file)
    source = open_source("folder", split="train", root=str(folder), on_bad_image="skip")
    with pytest.raises(UserError, match="none of the 2 images"):
        next(train_batches(source, batch_size=1, image_size=8, seed=0))
