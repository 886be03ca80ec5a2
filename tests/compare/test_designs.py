"""The designs that only the comparison uses, and where their names are known."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import bottlefit_jax.compare.designs  # noqa: F401  registers them
from bottlefit_jax import models
from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.convert.__main__ import main as convert
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.cost import device_cost
from bottlefit_jax.models import with_tail_of
from bottlefit_jax.models.designs import build_design
from bottlefit_jax.recipe import BOTTLENECK, base_config
from bottlefit_jax.training.checkpoint import load_variables, save_variables
from bottlefit_jax.training.network_meta import NetworkMeta
from tests.models.test_bottleneck import shapes
from tests.test_main import ROOT

ENTROPIC = {"channels": 24, "design": "entropic"}
AFTER_CUT = {"autoencoder": -4, "reduction": 0, "spinn": 0}  # rows that the latent has more than the feature
SENT = {"resnet18": 128, "densenet121": 256, "mobilenet_v2": 32, "inception_v3": 288}


@pytest.mark.parametrize("size", [(96, 96), (101, 160)])
@pytest.mark.parametrize("design", AFTER_CUT)
@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("densenet121", "inception_v3"))],
)
def test_every_design_restores_the_cut(name, design, size):
    channels = SENT[name] if design == "spinn" else 5
    module = models.create(name, bottleneck={"channels": channels, "design": design, "image_size": size})
    variables, (logits, features) = shapes(module, size)
    rows = module.feature_size(size)
    if design in AFTER_CUT:
        assert features["latent"].shape == (1, *(n + AFTER_CUT[design] for n in rows), channels)
    assert features["latent"].shape[1:3] == module.latent_size(size)
    assert features["decoded"].shape == (1, *rows, SENT[name])
    assert ("exit_logits" in features) == (design == "spinn")
    _, decoded = jax.eval_shape(lambda v, z: module.apply(v, z, method="decode"), variables, features["latent"])
    assert decoded["decoded"] == features["decoded"]
    assert logits.shape == (1, 1000)


@pytest.mark.parametrize("design", AFTER_CUT)
def test_the_device_runs_the_teachers_own_parts(design, draw_variables):
    teacher = models.create("resnet18", num_classes=5, width=8)
    channels = 16 if design == "spinn" else 3
    module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": channels, "design": design})
    images = np.random.default_rng(1).standard_normal((2, 64, 64, 3)).astype(np.float32)
    given = jax.tree.map(lambda x: x + 0.01, draw_variables(teacher, 64))
    variables = with_tail_of(given, draw_variables(module, 64))
    front = ("conv1", "bn1", "layer1", "layer2")
    assert module.device_parts[:6] == ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2")
    for collection in given:
        for part in set(front) & set(given[collection]):
            jax.tree.map(np.testing.assert_array_equal, variables[collection][part], given[collection][part])
    _, expected = jax.jit(teacher.apply)(given, images)
    reached = expected["layer2"]
    if design == "spinn":
        _, features = jax.jit(module.apply)(variables, images)
        latent, logits = jax.jit(lambda v, x: module.apply(v, x, method="device_outputs"))(variables, images)
        assert logits.shape == (2, 5)
        np.testing.assert_allclose(latent, reached, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(logits, features["exit_logits"], rtol=1e-4, atol=1e-5)
    else:
        bound = module.bind(variables)
        np.testing.assert_allclose(bound.encode(images), bound.encoder(reached), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "cut", "size", "latent"),
    [
        ("resnet50", "layer1", (224, 224), (55, 55)),
        ("resnet18", "layer1", (48, 48), (11, 11)),
        ("resnet18", "relu", (33, 47), (8, 11)),  # the cut is larger than the latent
        ("mobilenet_v2", None, (96, 64), (23, 15)),
    ],
)
def test_an_entropic_student_restores_the_cut(name, cut, size, latent):
    module = models.create(name, bottleneck={**ENTROPIC, "cut": cut, "image_size": size})
    variables, (logits, features) = shapes(module, size)
    wide, params = module.cut_channels, variables["params"]
    assert features["latent"].shape == (1, *latent, 24)
    assert features["decoded"].shape == (1, *module.feature_size(size), wide)
    assert logits.shape == (1, 1000)
    ordered = [sorted(params[half].items(), key=lambda item: int(item[0])) for half in ("encoder", "decoder")]
    layers = [layer for half in ordered for _, layer in half]
    kernels = [layer["kernel"].shape for layer in layers if "kernel" in layer]
    assert kernels == [
        *((5, 5, 3, 96), (5, 5, 96, 48), (2, 2, 48, 24)),
        *((2, 2, 64 if cut == "relu" else 24, 2 * wide), (2, 2, 2 * wide, wide), (2, 2, wide, wide)),
    ]
    assert [layer["gamma"].shape[0] for layer in layers if "gamma" in layer] == [96, 48, 2 * wide, wide]


@pytest.mark.parametrize(("size", "millions"), [(224, 588.35), (48, 26.93)])
def test_the_entropic_encoders_multiply_adds(size, millions):
    """The paper has 588 million at 224 px."""
    module = models.create("resnet50", bottleneck={**ENTROPIC, "cut": "layer1", "image_size": size})
    variables, _ = shapes(module, (size, size))
    assert device_cost(module, variables, size)["macs"] / 1e6 == pytest.approx(millions, abs=0.01)


def test_the_designs_that_keep_the_teachers_parts_are_those_of_the_methods_that_say_so():
    for method in METHODS.values():
        if method.change:
            config = base_config()
            method.apply(config, "layer2")
            name = config.student.bottleneck.design or "bottlefit"
            design = build_design(
                name, family="resnet", version=2, channels=3, hidden=None, cut_channels=8, cut_rows=8, image_rows=64
            )
            assert design.after_cut == method.keeps_teacher, method.name


def test_a_device_without_an_early_exit_computes_the_latent_alone(draw_variables):
    module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": 3, "design": "reduction"})
    variables, images = draw_variables(module, 32), jnp.ones((1, 32, 32, 3))
    (latent,) = module.apply(variables, images, method="device_outputs")
    np.testing.assert_array_equal(latent, module.apply(variables, images, method="encode"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design": "spinn", "version": 3}, "version=3 belongs to bottlefit; design='spinn' has none"),
        ({"design": "spinn", "channels": 12}, "channels=12 must be 128: a spinn sends layer2 of resnet18 as it is"),
        ({"design": "spinn", "channels": 128, "cut": "layer1"}, "channels=128 must be 64: a spinn sends layer1"),
        (
            {"design": "patches"},
            "design='patches' must be one of 'bottlefit', 'patch', 'dct', "
            "'autoencoder', 'reduction', 'entropic', 'spinn'$",
        ),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        models.create("resnet18", bottleneck=options)


def test_an_image_too_small_for_an_autoencoder_is_one_line():
    message = r"^images of 32 × 32 are too small for this bottleneck of resnet18: nothing is left of the latent"
    with pytest.raises(UserError, match=message):
        models.create("resnet18", bottleneck={"design": "autoencoder", "image_size": 32})
    with pytest.raises(UserError, match=message):
        shapes(models.create("resnet18", bottleneck={"design": "autoencoder"}), (32, 32))
    assert models.create("resnet18", bottleneck={"design": "autoencoder", "image_size": 40}).latent_size((40, 40)) == (
        1,
        1,
    )


def python(*arguments):
    """Exit code, standard output, standard error of a new process, where nothing is registered yet."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_without_the_comparison_its_designs_are_unknown_and_the_message_names_it():
    code = "from bottlefit_jax import models; models.create('resnet18', bottleneck={'design': 'spinn'})"
    _, _, err = python("-c", code)
    assert err.splitlines()[-1] == (
        "bottlefit_jax.errors.UserError: bottleneck design='spinn' must be one of 'bottlefit', 'patch', 'dct'; "
        "others belong to the comparison (bottlefit_jax.compare.designs)"
    )


def test_a_config_can_ask_for_a_design_of_the_comparison(tmp_path):
    flags = (f"--workdir={tmp_path}", "--config.student.bottleneck.design=spinn")
    code, out, err = python("-m", "bottlefit_jax.main", "--config=configs/digits.py", *flags)
    assert (code, out) == (2, "")
    assert err == "error: bottleneck channels=3 must be 32: a spinn sends layer2 of resnet18 as it is\n"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("design", "channels", "own"), [("spinn", 128, "exit/1/kernel"), ("entropic", 24, "decoder/1/gamma")]
)
def test_a_student_of_the_comparison_is_converted_and_read_again(tmp_path, draw_variables, design, channels, own):
    pytest.importorskip("safetensors")
    plan = {**BOTTLENECK, "channels": channels, "design": design, "image_size": 32}
    module = models.create("resnet18", num_classes=5, bottleneck=plan)
    variables = draw_variables(module, 32)
    labels = tuple((str(digit),) for digit in range(5))
    meta = NetworkMeta(
        name="resnet18",
        num_classes=5,
        bottleneck=plan,
        labels=labels,
        image_size=32,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    save_variables(tmp_path / "student", variables, meta)
    file, folder = tmp_path / "student.safetensors", tmp_path / "again"
    assert convert(["--to", "torch", "--input", str(tmp_path / "student"), "--output", str(file)]) == 0
    assert convert(["--input", str(file), "--output", str(folder)]) == 0
    again, _ = load_variables(folder)
    flat = traverse_util.flatten_dict(again, sep="/")
    assert f"params/{own}" in flat
    for path, value in traverse_util.flatten_dict(variables, sep="/").items():
        np.testing.assert_array_equal(flat[path], value)
