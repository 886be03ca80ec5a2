import dataclasses

import numpy as np
import pytest

from bottlefit_jax.errors import UserError
from export.images import read_images
from export.student import read_student
from tests.data.images import make_folder


def test_images_are_read_as_the_network_gets_them(workdir):
    images = read_images(read_student(workdir), "val", limit=40)
    assert (images.images.shape, images.images.dtype) == ((40, 32, 32, 3), np.uint8)
    assert len(images.labels) == len(images.names) == len(set(images.names)) == 40
    assert images.class_names == tuple("0123456789")
    batches = list(images.batches(16))
    assert [len(batch) for batch in batches] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate(batches), images.images)


def test_a_missing_dataset_is_refused(workdir, tmp_path):
    student = read_student(workdir)
    student.dataset.update(name="folder", root="")
    with pytest.raises(UserError, match="nowhere"):
        read_images(student, "val", limit=1, root=tmp_path / "nowhere")


def test_images_without_labels_have_the_answers_that_the_run_wrote(workdir, tmp_path):
    make_folder(tmp_path / "frames", train=10, val=5)
    student = read_student(workdir)
    changed = {"name": "", "unlabelled": [str(tmp_path / "frames")]}
    student = dataclasses.replace(student, dataset={**student.dataset, **changed}, answers=(7, 1, 4))
    images = read_images(student, "val", limit=None)
    assert (images.labels.tolist(), images.class_names, len(images.names)) == ([7, 1, 4], (), 3)
    assert images.agreement
    assert len(read_images(student, "train", limit=None).images) == 27
    (tmp_path / "frames").rename(tmp_path / "moved")
    moved = read_images(student, "val", limit=None, root=tmp_path / "moved")
    np.testing.assert_array_equal(moved.images, images.images)
    with pytest.raises(UserError, match="the run has 2 answers of its teacher for 3 images without labels"):
        read_images(dataclasses.replace(student, answers=(7, 1)), "val", limit=None, root=tmp_path / "moved")
