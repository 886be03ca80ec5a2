import numpy as np
import pytest

from bottlefit_jax.errors import UserError
from export.images import read_images
from export.student import read_student


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
