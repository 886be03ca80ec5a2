"""The design `dct`: an encoder and a decoder that begin as a codec's transform, in front of the whole teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dctn

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.models import dct
from bottlefit_jax.models.inheritance import with_tail_of


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32))


def student_of(channels, **options):
    return models.create(
        "resnet18", num_classes=4, width=8, bottleneck={"design": "dct", "channels": channels, **options}
    )


def test_the_basis_is_orthonormal_and_its_first_row_is_the_mean():
    rows = dct.basis(dct.VALUES)
    np.testing.assert_allclose(rows @ rows.T, np.eye(dct.VALUES), atol=1e-12)
    np.testing.assert_allclose(rows[0], 1 / np.sqrt(dct.VALUES))
    assert not dct.basis(dct.VALUES + 2)[dct.VALUES :].any()


def test_coefficients_are_those_of_scipy(images):
    student = student_of(dct.VALUES, bits=None)
    latent = student.apply(student.init(jax.random.key(0), images), images, method="encode")
    block = np.asarray(images, np.float64)[0, 8:16, 16:24].mean(-1) * np.sqrt(3)  # the brightness
    wanted = np.sort(np.abs(dctn(block, norm="ortho")).ravel())
    distances = np.abs(np.abs(np.asarray(latent)[0, 1, 2])[:, None] - wanted).min(0)
    np.testing.assert_allclose(distances, 0, atol=1e-5)


def test_with_all_coefficients_a_new_student_is_its_teacher(images):
    teacher = models.create("resnet18", num_classes=4, width=8)
    student = student_of(dct.VALUES, bits=None)
    given = teacher.init(jax.random.key(1), images)
    variables = with_tail_of(given, student.init(jax.random.key(0), images))
    logits, features = student.apply(variables, images)
    np.testing.assert_allclose(features["decoded"], images, atol=1e-5)
    np.testing.assert_allclose(logits, teacher.apply(given, images)[0], atol=1e-4)


def test_the_decoder_adds_a_guess_to_the_inverse_which_begins_with_nothing(images):
    student = student_of(12, bits=None)
    variables = student.init(jax.random.key(0), images)
    latent = student.apply(variables, images, method="encode")

    def restored(given, latent):
        return student.apply(given, jnp.asarray(latent), method="decode")[1]["decoded"]

    begun = variables["params"]["decoder"]
    assert sorted(begun) == ["0_0", "0_1"]  # the branches of a sum
    np.testing.assert_allclose(restored(variables, -latent), -restored(variables, latent), atol=1e-5)
    last = {key: jnp.ones_like(value) for key, value in begun["0_1"]["4"].items()}
    learned = {**begun, "0_1": {**begun["0_1"], "4": last}}
    variables = {**variables, "params": {**variables["params"], "decoder": learned}}
    sum_of_both = restored(variables, latent) + restored(variables, -latent)
    assert np.abs(sum_of_both).max() > 0.1  # of a linear filter it is 0


def test_the_transform_learns_slowly_and_what_is_beside_it_does_not(images):
    student = student_of(12)
    paces = student.paces
    assert sorted(paces) == ["decoder/0_0/0/kernel", "encoder/0/kernel"]
    assert all(0 < pace < 1 for pace in paces.values())
    params = student.init(jax.random.key(0), images)["params"]
    names = ["/".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(params)]
    assert set(paces) < set(names)
    assert models.create("resnet18", width=8, bottleneck={}).paces == models.create("resnet18", width=8).paces == {}


def test_fewer_coefficients_lose_the_high_frequencies_first():
    smooth = np.broadcast_to(np.linspace(-1, 1, 48)[:, None, None], (1, 48, 48, 3)).astype(np.float32)
    rough = np.random.default_rng(1).normal(size=(1, 48, 48, 3)).astype(np.float32)
    student = student_of(24, bits=None)
    variables = student.init(jax.random.key(0), smooth)
    lost = [
        float(np.square(student.apply(variables, image)[1]["decoded"] - image).mean() / np.square(image).mean())
        for image in (smooth, rough)
    ]
    assert lost[0] < 0.01
    assert lost[1] > 0.5


def test_its_cut_is_the_image_which_stage_1_does_not_match():
    student = student_of(12)
    assert student.cut == "image"
    assert student.latent_size((48, 56)) == (6, 7)
    assert student.matched == models.create("resnet18", num_classes=4, width=8).spec.matched
    assert student.device_parts == ("encoder",)


@pytest.mark.parametrize("size", [50, 260])
def test_sides_that_are_no_multiple_of_a_block_are_restored_at_their_size(size):
    student = student_of(12)
    features = jax.eval_shape(
        lambda image: student.init_with_output(jax.random.key(0), image)[0][1], jnp.zeros((1, size, size, 3))
    )
    assert features["decoded"].shape == (1, size, size, 3)


def test_it_cannot_be_cut_elsewhere():
    with pytest.raises(UserError, match=r"cut='layer2' must be 'image', .* 'dct'"):
        student_of(12, cut="layer2")
