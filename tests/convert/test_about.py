"""A file carries the description of its network; without one the command names its assumptions."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.convert import about, files
from bottlefit_jax.convert.network import Given, from_file, to_state_dict
from bottlefit_jax.errors import UserError
from bottlefit_jax.models import normalise
from bottlefit_jax.recipe import BOTTLENECK
from bottlefit_jax.training.checkpoint import load_meta, load_variables, save_variables
from bottlefit_jax.training.network_meta import NetworkMeta
from tests.convert.state_dicts import WIDTH, import_, run, save_npz, state_dict

BITS_4 = {"channels": 3, "hidden": 16, "bits": 4, "range": "static", "per": "channel", "image_size": 32}
META = NetworkMeta(
    name="resnet18",
    options={"width": 8},
    num_classes=7,
    bottleneck={**BOTTLENECK, **BITS_4},
    image_size=32,
    resize=32,
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    labels=tuple((f"n0000000{i}", f"thing {i}") for i in range(7)),
)


@pytest.fixture(scope="module")
def network():
    """A student with everything a folder can say: its module and its variables."""
    module = models.create("resnet18", num_classes=7, width=8, bottleneck=META.bottleneck)
    rng = np.random.default_rng(0)
    abstract = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), abstract)
    variables["ranges"]["quantizer"]["high"] = np.float32([1.5, 2.7182817, 9.1])
    return module, variables


def text(**changes):
    """The description in a file, with changes."""
    return json.dumps(json.loads(about.write(META, {})) | changes)


def test_a_student_comes_back_as_it_went(network):
    module, variables = network
    arrays = to_state_dict(variables, META)[0]
    file = files.File("safetensors", arrays, about=about.read("x", about.write(META, variables)))
    found = from_file(file, None, Given())
    assert found.meta == META
    images = np.random.default_rng(1).random((4, 32, 32, 3), np.float32)
    before, after = (np.asarray(module.apply(given, images)[0]) for given in (variables, found.variables))
    np.testing.assert_array_equal(after, before)
    assert found.notes == [
        "bottleneck: version 2, 3 channels, 4 bits (as the file says)",
        "classes: named as the file says",
    ]


def test_flags_override_the_files_description(network):
    variables = network[1]
    file = files.File("x", to_state_dict(variables, META)[0], about=about.read("x", about.write(META, variables)))
    given = Given(bits=0, mean=(0.5, 0.5, 0.5), image_size=64)
    meta = from_file(file, "resnet18", given).meta
    assert (meta.bottleneck["bits"], meta.mean, meta.std, meta.image_size) == (None, (0.5,) * 3, META.std, 64)
    with pytest.raises(UserError, match="the file says that it is of resnet18, not resnet34: give --model resnet18"):
        from_file(file, "resnet34", given)


def test_assumptions_are_named_and_flags_replace_them(tmp_path, capsys, teacher):
    source = save_npz(tmp_path / "t.npz", teacher)
    assert import_(source, tmp_path / "a") == 0
    out = capsys.readouterr().out
    assert "normalisation: assumed to be ImageNet's, mean 0.485 0.456 0.406, std 0.229 0.224 0.225; --mean R,G,B" in out
    assert "image size: assumed to be 224 px, the model's own; --image-size N sets another" in out
    flags = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.3", "--image-size", "48")
    assert import_(source, tmp_path / "b", *flags) == 0
    out = capsys.readouterr().out
    assert "normalisation" not in out
    assert "image size" not in out
    meta = load_meta(tmp_path / "b")
    assert (meta.mean, meta.std, meta.image_size) == ((0.5,) * 3, (0.25, 0.25, 0.3), 48)


def test_released_weights_of_an_efficientnet_lite_have_a_normalisation_and_a_size_of_their_own():
    converted = from_file(files.File("x", state_dict("efficientnet_lite1")), "efficientnet_lite1", Given())
    meta = converted.meta
    pixels = np.array([[[127, 127, 127], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(normalise(pixels[None], meta.mean, meta.std)[0, 0], [[0] * 3, [1] * 3], atol=1e-6)
    assert (meta.image_size, meta.num_classes) == (240, 7)
    assert converted.notes[:2] == [
        "normalisation: assumed to be that of the released weights, mean 0.498 0.498 0.498, std 0.502 0.502 0.502; "
        "--mean R,G,B and --std R,G,B set other values",
        "image size: assumed to be 240 px, the model's own; --image-size N sets another",
    ]


@pytest.mark.parametrize(
    ("match", "flags"),
    [
        ("--mean is '0.5,x'; it must be R,G,B such as", ("--mean", "0.5,x")),
        ("--mean is [0.5, 0.5]; it needs three numbers", ("--mean", "0.5,0.5")),
        ("--mean is [123.7, 116.3, 103.5]; images are scaled to 0..1", ("--mean", "123.7,116.3,103.5")),
        ("--std is [0.0, 1.0, 1.0]; images are scaled", ("--std", "0,1,1")),
        ("--std is [nan, 1.0, 1.0]; images are scaled", ("--std", "nan,1,1")),
        ("--image-size is 0; it must be at least 1", ("--image-size", "0")),
        ("--weights model_ema: ", ("--weights", "model_ema")),
    ],
)
def test_an_invalid_flag_is_one_line(tmp_path, refused, teacher, match, flags):
    source = save_npz(tmp_path / "t.npz", teacher)
    args = ("--model", "resnet18", *WIDTH, "--input", source, "--output", tmp_path / "x")
    refused(tmp_path / "x", match, *args, *flags)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", r"x: its description of the network \('bottlefit_jax'\) is damaged; give --model"),
        ("[]", "is damaged"),
        ('{"format": 2}', "x was written by a later version: its format is 2, not 1"),
        (
            '{"format": 1, "name": "resnet18", "options": {}}',
            "x is damaged: its .* has no num_classes, bottleneck, image",
        ),
        (text(bottleneck=3), "x is damaged: its bottleneck is 3, not a dictionary or null"),
        (
            text(mean=[123.7, 116.3, 103.5]),
            r"x is damaged: its mean is \[123.7, 116.3, 103.5\], not three numbers from",
        ),
    ],
)
def test_a_damaged_description_is_one_line(text, match):
    with pytest.raises(UserError, match=match):
        about.read("x", text)


def test_the_folder_of_a_run_is_refused_and_its_networks_are_named(tmp_path, refused, network):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    args = ("--to", "torch", "--input", tmp_path / "run", "--output", tmp_path / "x.pth")
    refused(tmp_path / "x.pth", f"{tmp_path / 'run'} is the folder of a run that has finished no network yet", *args)
    save_variables(tmp_path / "run" / "student", network[1], META)
    refused(tmp_path / "x.pth", f"several things: name {tmp_path / 'run' / 'student'}\n", *args)


@pytest.mark.torch
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_student_evaluates_the_same_after_pytorch(tmp_path, capsys, network, suffix):
    torch = pytest.importorskip("torch")
    module, variables = network
    save_variables(tmp_path / "student", variables, META)
    source = tmp_path / f"s{suffix}"
    assert run("--to", "torch", "--input", tmp_path / "student", "--output", source) == 0
    out = capsys.readouterr().out
    assert "elsewhere, feed it images of 32 px, normalised with mean 0.1 0.2 0.3, std 0.4 0.5 0.6" in out
    assert run("--input", source, "--output", tmp_path / "back") == 0
    back, meta = load_variables(tmp_path / "back")
    assert dataclasses.replace(meta, source=None, digest="") == META
    images = np.random.default_rng(1).random((4, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(module.apply(back, images)[0], module.apply(variables, images)[0])
    if suffix == ".pth":  # a state dict like any other, all of it tensors
        loaded = torch.load(source, weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in loaded.values())
        holder = torch.nn.Module()
        for key, value in loaded.items():
            at = holder
            for name in key.split(".")[:-1]:
                at = at._modules.setdefault(name, torch.nn.Module())
            at.register_buffer(key.rpartition(".")[2], torch.zeros_like(value))
        holder.load_state_dict(loaded, strict=True)
        torch.testing.assert_close(holder.state_dict()["fc.bias"], loaded["fc.bias"], rtol=0, atol=0)
