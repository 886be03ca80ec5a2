import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from bottlefit_jax.bundle import read_bundle, write_manifest
from bottlefit_jax.errors import UserError
from export import triton
from tests.bundle import example


def tail():
    """uint8 latent [B, 5, 6, 3] -> logits [B, 4], as bytes of ONNX."""
    weights = np.arange(90 * 4, dtype=np.float32).reshape(90, 4)
    nodes = [
        helper.make_node("Cast", ["latent"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tail",
        [helper.make_tensor_value_info("latent", TensorProto.UINT8, ["B", 5, 6, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 4])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, ir_version=8, opset_imports=opset).SerializeToString()


@pytest.fixture
def bundle(tmp_path):
    folder = example.write(tmp_path / "digits", files={**example.FILES, "tail.onnx": tail()})
    return write_manifest(folder, example.manifest())


def read_config(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def everything_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_repository_is_what_triton_loads(bundle, tmp_path):
    triton.write_repository(bundle, tmp_path / "models")
    model = tmp_path / "models" / "digits"
    assert everything_in(tmp_path / "models") == {"digits/config.pbtxt", "digits/labels.txt", "digits/3/model.onnx"}
    assert (model / "3" / "model.onnx").read_bytes() == tail()
    assert (model / "labels.txt").read_text().splitlines() == list(bundle.manifest.labels)
    config = read_config(model)
    assert (config.name, config.platform, config.backend) == ("digits", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 32
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters == {"head": example.HEAD, "tail": example.TAIL, "format": "2"}


def test_the_config_speaks_of_the_tensors_that_the_graph_has(bundle, tmp_path):
    triton.write_repository(bundle, tmp_path / "models")
    config = read_config(tmp_path / "models" / "digits")
    session = onnxruntime.InferenceSession(str(tmp_path / "models" / "digits" / "3" / "model.onnx"))
    types = {"tensor(uint8)": model_config_pb2.TYPE_UINT8, "tensor(float)": model_config_pb2.TYPE_FP32}
    pairs = [*zip(config.input, session.get_inputs(), strict=True)]
    pairs += zip(config.output, session.get_outputs(), strict=True)
    for said, has in pairs:
        assert (said.name, said.data_type, [*said.dims]) == (has.name, types[has.type], has.shape[1:])
        assert isinstance(has.shape[0], str)  # the batch, which Triton puts before dims
    assert config.output[0].label_filename == "labels.txt"


def test_without_labels_there_is_no_file_of_them(bundle, tmp_path):
    bundle = write_manifest(bundle.folder, example.manifest(labels=[]))
    triton.write_repository(bundle, tmp_path / "models")
    assert everything_in(tmp_path / "models") == {"digits/config.pbtxt", "digits/3/model.onnx"}
    assert not read_config(tmp_path / "models" / "digits").output[0].label_filename


@pytest.mark.parametrize(("most", "preferred"), [(1, [1]), (2, [1, 2]), (7, [1, 3, 7]), (64, [16, 32, 64])])
def test_batches_are_preferred_up_to_the_largest(bundle, tmp_path, most, preferred):
    triton.write_repository(bundle, tmp_path / "models", max_batch_size=most, delay_us=0)
    config = read_config(tmp_path / "models" / "digits")
    assert config.max_batch_size == most
    assert list(config.dynamic_batching.preferred_batch_size) == preferred


@pytest.mark.parametrize(
    ("options", "told"), [({"max_batch_size": 0}, "max_batch_size is 0"), ({"delay_us": -1}, "-1")]
)
def test_numbers_out_of_range_are_refused(bundle, tmp_path, options, told):
    with pytest.raises(UserError, match=told):
        triton.write_repository(bundle, tmp_path / "models", **options)
    assert not (tmp_path / "models").exists()


def test_a_model_of_that_name_is_replaced_only_if_asked(bundle, tmp_path):
    triton.write_repository(bundle, tmp_path / "models")
    (tmp_path / "models" / "other").mkdir()
    newer = read_bundle(write_manifest(bundle.folder, example.manifest(version=4)).folder)
    with pytest.raises(UserError, match="digits exists: name another folder"):
        triton.write_repository(newer, tmp_path / "models")
    assert (tmp_path / "models" / "digits" / "3" / "model.onnx").exists()
    triton.write_repository(newer, tmp_path / "models", overwrite=True)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"digits", "other"}
    assert {path.name for path in (tmp_path / "models" / "digits").iterdir()} == {"4", "config.pbtxt", "labels.txt"}


def test_what_is_no_model_is_never_removed(bundle, tmp_path):
    with pytest.raises(UserError, match="is no model of a Triton repository"):
        triton.write_repository(bundle, tmp_path, overwrite=True)  # tmp_path/digits is the bundle
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        triton.write_repository(bundle, tmp_path / "file" / "models")
    assert read_bundle(bundle.folder) == bundle


def test_a_full_disk_is_one_line_and_leaves_the_old_model(bundle, tmp_path, monkeypatch):
    triton.write_repository(bundle, tmp_path / "models")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton.shutil, "copyfile", full)
    newer = write_manifest(bundle.folder, example.manifest(version=4))
    with pytest.raises(UserError, match=r"cannot write .*digits: no space left on the disk"):
        triton.write_repository(newer, tmp_path / "models", overwrite=True)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"digits"}
    assert (tmp_path / "models" / "digits" / "3" / "model.onnx").exists()
