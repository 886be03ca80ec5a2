import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.cli import silence
from bottlefit_jax.codec import quantizer
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.normalise import normalise
from export import litert
from export.folding import fold_encoder
from export.head import float_head, integer_head, on_grid
from tests.export.encoders import DESIGNS, MEAN, STD, encoder_variables, random_images, relative, student
from tests.export.flatbuffer import float_constants, model, operators

SIZE = (64, 64)
SHAPE = (1, *SIZE, 3)
BANNED = frozenset({"PADV2", "CUSTOM"})


def fold(module, variables, size=SIZE):
    return fold_encoder(module, variables, mean=MEAN, std=STD, image_size=size)


def run_all(blob, images):
    interpreter = Interpreter(blob)
    return np.stack([interpreter.run(image) for image in images])


def assert_plain(blob, *, banned=BANNED):
    """Check that the model only has operators with fast code in every interpreter, and no infinite padding."""
    names = operators(blob)
    assert not [name for name in names if name in banned or name.startswith("STABLEHLO")], names
    assert all(np.isfinite(constant).all() for constant in float_constants(blob))


@pytest.fixture(scope="module")
def folded():
    return fold(*student())


@pytest.fixture(scope="module")
def float32(folded):
    return litert.to_tflite(float_head(folded), SHAPE)


@pytest.fixture(scope="module")
def source(folded):
    return litert.to_tflite(integer_head(folded), SHAPE)


@pytest.fixture(scope="module")
def int8(source):
    return litert.to_int8(source, random_images(16, SIZE))


@pytest.mark.parametrize("design", DESIGNS)
def test_the_float_head_computes_what_the_jax_function_computes(design):
    module, variables = student(design)
    size = (76, 97)
    head = float_head(fold(module, variables, size))
    blob = litert.to_tflite(head, (1, *size, 3))
    assert_plain(blob, banned=BANNED | {"TRANSPOSE"})
    images = random_images(2, size)
    want = np.concatenate([np.asarray(jax.jit(head)(image[None])) for image in images])
    assert relative(run_all(blob, images), want) < 1e-5


@pytest.mark.parametrize("design", ["resnet v1", "resnet v3", "patch"])
def test_a_narrow_float_convolution_has_eight_channels(design):
    """Narrower ones give other bits on ARM, as `benchmarks/check_arm64.py` shows."""
    blob = litert.to_tflite(float_head(fold(*student(design))), SHAPE)
    graph = model(blob).subgraphs[0]
    names = operators(blob)
    widths = [
        graph.tensors[op.outputs[0]].shape[-1]
        for name, op in zip(names, graph.operators, strict=True)
        if name == "CONV_2D"
    ]
    assert widths[-1] == 8
    assert min(widths) == 8


def test_float16_halves_the_file_and_keeps_the_latent(float32):
    blob = litert.to_float16(float32)
    assert_plain(blob)
    assert len(blob) < 0.65 * len(float32)
    images = random_images(3, SIZE)
    assert relative(run_all(blob, images), run_all(float32, images)) < 2e-3


def test_an_int8_head_has_uint8_ends_and_a_small_error(float32, int8):
    assert_plain(int8)
    interpreter, images = Interpreter(int8), random_images(8, SIZE, seed=1)
    integers, want = run_all(int8, images), run_all(float32, images)
    assert (interpreter.input_dtype, integers.dtype) == (np.uint8, np.uint8)
    assert 0 < interpreter.scale < 1
    assert 0 <= interpreter.zero_point <= 255
    error = (integers - np.float32(interpreter.zero_point)) * np.float32(interpreter.scale) - want
    assert np.sqrt(np.square(error).mean() / np.square(want).mean()) < 0.05


@pytest.mark.parametrize("design", DESIGNS)
def test_the_int8_head_of_every_design_has_a_small_error(design):
    folded = fold(*student(design), (75, 80))
    blob = litert.to_int8(litert.to_tflite(integer_head(folded), (1, 75, 80, 3)), random_images(8, (75, 80)))
    assert_plain(blob)
    interpreter, image = Interpreter(blob), random_images(1, (75, 80), seed=1)[0]
    want = np.asarray(jax.jit(float_head(folded))(image[None]))[0]
    error = (interpreter.run(image) - np.float32(interpreter.zero_point)) * np.float32(interpreter.scale) - want
    assert np.sqrt(np.square(error).mean() / np.square(want).mean()) < 0.06


def test_an_int8_head_converts_between_ranges_only_at_its_ends(source, int8):
    deep, patch = (
        litert.to_int8(litert.to_tflite(integer_head(fold(*student(design))), SHAPE), random_images(16, SIZE))
        for design in ("resnet v3", "patch")
    )
    for blob in (int8, deep, patch):
        assert operators(blob).count("QUANTIZE") == 2
        assert operators(blob)[-1] == "QUANTIZE"
        assert operators(blob).count("DEQUANTIZE") == 0


@pytest.mark.parametrize("size", [SIZE, (66, 79)])
def test_patches_are_read_from_unrounded_pixels(size):
    """No pixel is rounded, and the first kernel is the one whose share of the mean is in the bias."""
    folded = fold(*student("patch"), size)
    dark = [image // 3 + 20 for image in random_images(4, size)]
    blob = litert.to_int8(litert.to_tflite(integer_head(folded), (1, *size, 3)), dark)
    cut = size != SIZE
    assert operators(blob) == [
        *("CAST", "QUANTIZE", *["SLICE"] * cut, "RESHAPE", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "PAD", "CONV_2D"),
        "QUANTIZE",
    ]
    content = model(blob)
    graph = content.subgraphs[0]
    first = graph.operators[operators(blob).index("CONV_2D")]
    pixels, kernel = (graph.tensors[number] for number in first.inputs[:2])
    assert (pixels.quantization.scale.tolist(), pixels.quantization.zeroPoint.tolist()) == ([1.0], [-128])
    integers = np.frombuffer(bytes(content.buffers[kernel.buffer].data), np.int8).reshape(kernel.shape)
    steps = kernel.quantization.scale[:, None, None, None]
    want = on_grid(folded.layers[0].kernel).reshape(4, 12, 48).transpose(2, 0, 1)
    np.testing.assert_allclose((integers * steps)[:, :, 0], want, rtol=1e-5)


def test_the_int8_head_of_patches_differs_from_flax_by_a_few_steps():
    module, variables = student("patch", channels=12)
    folded = fold(module, variables, (97, 111))
    blob = litert.to_int8(litert.to_tflite(integer_head(folded), (1, 97, 111, 3)), random_images(16, (97, 111)))
    device, images = Interpreter(blob), random_images(4, (97, 111), seed=1)
    want = module.apply(variables, normalise(images, MEAN, STD), method="encode")
    affine = quantizer.Affine(np.float32(device.scale), np.int32(device.zero_point), np.float32(0))
    steps = np.abs(run_all(blob, images).astype(int) - quantizer.quantize(np.asarray(want), affine).astype(int))
    assert steps.max() <= 6
    assert steps.mean() < 1


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_the_float_head_of_patches_gives_the_latent_of_flax(kind):
    module, variables = student("patch", channels=12)
    size = (97, 111)
    blob = litert.to_tflite(float_head(fold(module, variables, size)), (1, *size, 3))
    images = random_images(3, size)
    want = np.asarray(module.apply(variables, normalise(images, MEAN, STD), method="encode"))
    got = run_all(blob if kind == "float32" else litert.to_float16(blob), images)
    assert relative(got, want) < {"float32": 1e-5, "float16": 2e-3}[kind]


def test_the_order_of_calibration_images_does_not_matter(source, int8):
    assert litert.to_int8(source, random_images(16, SIZE)[::-1]) == int8


def test_the_range_of_the_latent_is_the_callers(source):
    for low, high in ((-1.7, 2.9), (-0.5, 3.0), (0.4, 2.0)):
        device = Interpreter(litert.to_int8(source, random_images(2, SIZE), latent_range=(low, high)))
        want = quantizer.static_range(low, high)
        assert device.scale == pytest.approx(float(want.scale), rel=1e-6)
        assert device.zero_point == int(want.zero_point)


def test_channels_that_are_always_zero_stay_zero_in_int8():
    module, variables = student()
    norm = variables["params"]["encoder"]["4"]
    norm["scale"][:32], norm["bias"][:32] = -1, -1
    variables["batch_stats"]["encoder"]["4"]["mean"][:32] = 0
    folded = fold(module, variables)
    assert not folded.layers[0].kernel[..., :32].any()
    blob = litert.to_int8(litert.to_tflite(integer_head(folded), SHAPE), random_images(4, SIZE))
    interpreter, image = Interpreter(blob), random_images(1, SIZE, seed=1)[0]
    want = np.asarray(float_head(folded)(image[None]))[0]
    got = (interpreter.run(image) - np.float32(interpreter.zero_point)) * np.float32(interpreter.scale)
    assert relative(got, want) < 0.1


@pytest.mark.parametrize("design", ["resnet v2", "patch"])
def test_the_head_converts_up_to_every_layer(design):
    folded, image = fold(*student(design)), random_images(1, SIZE)
    for until in range(1, len(folded.layers)):
        want = np.asarray(float_head(folded, until=until)(image))[0]
        got = Interpreter(litert.to_tflite(float_head(folded, until=until), SHAPE)).run(image[0])
        assert relative(got, want) < 1e-5
        blob = litert.to_int8(litert.to_tflite(integer_head(folded, until=until), SHAPE), image)
        device = Interpreter(blob)
        values = (device.run(image[0]) - np.float32(device.zero_point)) * np.float32(device.scale)
        assert relative(values, want) < 0.1


def test_the_same_arguments_give_the_same_bytes(folded, float32, source, int8):
    assert litert.to_tflite(float_head(folded), SHAPE) == float32
    assert litert.to_tflite(integer_head(folded), SHAPE) == source
    assert litert.to_int8(source, random_images(16, SIZE)) == int8
    assert litert.to_float16(float32) == litert.to_float16(float32)


def test_tensors_do_not_have_the_names_of_jax_scopes(float32, int8):
    for blob in (float32, int8):
        assert b"jit(" not in blob
        assert b"/" not in b"".join(tensor.name for tensor in model(blob).subgraphs[0].tensors)


def test_a_command_that_makes_the_files_prints_nothing(folded, capfd, monkeypatch):
    monkeypatch.setattr(silence, "_is_command", True)
    blob = litert.to_tflite(integer_head(folded), SHAPE)
    litert.to_int8(blob, random_images(1, SIZE))
    litert.to_float16(blob)
    assert capfd.readouterr() == ("", "")


def test_calibration_without_images_is_refused(source):
    with pytest.raises(UserError, match="at least one calibration image"):
        litert.to_int8(source, [])


def test_calibration_images_of_another_shape_or_type_are_refused(source):
    good = random_images(1, SIZE)[0]
    with pytest.raises(UserError, match=r"image 1 is uint8 \(32, 32, 3\)"):
        litert.to_int8(source, [good, random_images(1, (32, 32))[0]])
    with pytest.raises(UserError, match="image 0 is float32"):
        litert.to_int8(source, [good.astype(np.float32)])


def test_the_int8_head_of_the_paper_has_at_most_25_kb():
    folded = fold(*student("densenet", channels=12), (224, 224))
    source = litert.to_tflite(integer_head(folded), (1, 224, 224, 3))
    assert len(litert.to_int8(source, random_images(2, (224, 224)))) <= 25_000


def test_the_int8_head_of_patches_has_at_most_16_kb():
    folded = fold(*student("patch", channels=12), (224, 224))
    source = litert.to_tflite(integer_head(folded), (1, 224, 224, 3))
    assert len(litert.to_int8(source, random_images(2, (224, 224)))) <= 16_000


def whole_student(name, size, *, design="bottlefit", **options):
    """A student with random weights everywhere."""
    module = models.create(name, num_classes=10, bottleneck={"channels": 4, "design": design}, **options)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *size, 3)))
    for collection, tree in encoder_variables(module).items():
        variables[collection]["encoder"] = tree["encoder"]
    return module, variables


def assert_local(module, variables, size):
    blob = litert.local_tflite(module, variables, fold(module, variables, size))
    assert_plain(blob)
    images = random_images(2, size)

    @jax.jit
    def unquantised(images):
        latent = module.apply(variables, normalise(images, MEAN, STD), method="encode")
        return module.apply(variables, latent, image_size=size, method="decode")[0]

    assert relative(run_all(blob, images), np.asarray(unquantised(images))) < 1e-4


@pytest.mark.parametrize("design", ["bottlefit", "patch"])
def test_the_local_model_is_the_student_without_its_quantiser(design):
    size = (32, 32)
    assert_local(*whole_student("resnet18", size, width=16, design=design), size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("densenet169", (64, 64)),
        ("mobilenet_v2", (96, 96)),
        ("efficientnet_lite0", (97, 97)),
        ("inception_v3", (107, 107)),
        ("resnet50", (75, 90)),
    ],
)
def test_the_local_model_of_every_family(name, size):
    assert_local(*whole_student(name, size), size)
