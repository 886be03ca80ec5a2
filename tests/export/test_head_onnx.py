import jax
import numpy as np
import onnx
import pytest

from bottlefit_jax.models.normalise import normalise
from export.head_onnx import head_onnx
from tests.export.encoders import MEAN, STD, random_images, relative
from tests.export.tails import operators, random_student, run, shape_of


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet18", 64, {}),
        ("resnet18", 75, {"version": 1}),
        ("densenet121", 224, {}),
        ("resnet18", 64, {"version": 3}),
        ("resnet18", 75, {"design": "patch"}),
    ],
)
def test_onnx_head_equals_flax(name, size, options, capfd):
    module, variables = random_student(name, size, **options)
    model = head_onnx(module, variables, mean=MEAN, std=STD, image_size=(size, size))
    image = random_images(1, (size, size)).astype(np.float32)
    latent = run(model, image=image)["latent"]
    want = jax.jit(lambda image: module.apply(variables, normalise(image, MEAN, STD), method="encode"))(image)
    assert relative(latent, np.asarray(want)) <= 1e-5
    assert shape_of(model.graph.input[0]) == [1, size, size, 3]
    assert shape_of(model.graph.output[0]) == list(latent.shape)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert operators(model).count("Transpose") == 2
    assert capfd.readouterr() == ("", "")
