import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from bottlefit_jax.bundle import Manifest, read_bundle, write_manifest
from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import parse_rates
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


FILES = {**example.FILES, "tail.onnx": tail()}


@pytest.fixture
def bundle(tmp_path):
    folder = example.write(tmp_path / "digits", files=FILES)
    return write_manifest(folder, Manifest.from_json(example.manifest()))


@pytest.fixture
def with_rates(tmp_path):
    return read_bundle(example.write(tmp_path / "rated", **example.with_rates(files=FILES)))


def read_config(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def everything_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_repository_has_the_files_that_triton_loads(bundle, tmp_path):
    triton.write_repository(bundle, tmp_path / "models")
    model = tmp_path / "models" / "digits"
    assert everything_in(tmp_path / "models") == {"digits/config.pbtxt", "digits/labels.txt", "digits/3/model.onnx"}
    assert read_config(model).version_policy.WhichOneof("policy_choice") == "all"
    assert (model / "labels.txt").read_text().splitlines() == list(bundle.manifest.labels)
    config = read_config(model)
    assert (config.name, config.platform, config.backend) == ("digits", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 32
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert not config.dynamic_batching.HasField("default_queue_policy")  # with one, requests wait 500 ms at times
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters == {"head": example.HEAD, "tail": example.TAIL, "format": "4"}


def test_the_config_declares_the_tensors_of_the_graph(bundle, tmp_path):
    triton.write_repository(bundle, tmp_path / "models")
    config = read_config(tmp_path / "models" / "digits")
    session = onnxruntime.InferenceSession(str(tmp_path / "models" / "digits" / "3" / "model.onnx"))
    types = {"tensor(uint8)": model_config_pb2.TYPE_UINT8, "tensor(float)": model_config_pb2.TYPE_FP32}
    pairs = [*zip(config.input, session.get_inputs(), strict=True)]
    pairs += zip(config.output, session.get_outputs(), strict=True)
    for declared, tensor in pairs:
        assert (declared.name, declared.data_type, [*declared.dims]) == (
            tensor.name,
            types[tensor.type],
            tensor.shape[1:],
        )
        assert isinstance(tensor.shape[0], str)  # the batch, which Triton puts before dims
    assert [output.label_filename for output in config.output] == ["labels.txt", "labels.txt", ""]


def test_without_labels_there_is_no_labels_file(bundle, tmp_path):
    bundle = write_manifest(bundle.folder, Manifest.from_json(example.manifest(labels=[])))
    triton.write_repository(bundle, tmp_path / "models")
    assert everything_in(tmp_path / "models") == {"digits/config.pbtxt", "digits/3/model.onnx"}
    assert not read_config(tmp_path / "models" / "digits").output[0].label_filename


@pytest.mark.parametrize(("most", "preferred"), [(1, [1]), (2, [1, 2]), (7, [1, 3, 7]), (64, [16, 32, 64])])
def test_preferred_batches_are_fractions_of_the_largest(bundle, tmp_path, most, preferred):
    triton.write_repository(bundle, tmp_path / "models", max_batch_size=most, delay_us=0)
    config = read_config(tmp_path / "models" / "digits")
    assert config.max_batch_size == most
    assert list(config.dynamic_batching.preferred_batch_size) == preferred


@pytest.mark.parametrize(
    ("options", "message"), [({"max_batch_size": 0}, "max_batch_size is 0"), ({"delay_us": -1}, "-1")]
)
def test_numbers_out_of_range_are_refused(bundle, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        triton.write_repository(bundle, tmp_path / "models", **options)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("batch", [1, 3])
def test_the_model_has_the_ids_and_computes_what_the_tail_computes(bundle, tmp_path, batch):
    triton.write_repository(bundle, tmp_path / "models")
    latent = np.random.default_rng(batch).integers(0, 256, (batch, 5, 6, 3), dtype=np.uint8)
    own = onnxruntime.InferenceSession(str(bundle.path("tail.onnx")))
    copy = onnxruntime.InferenceSession(str(tmp_path / "models" / "digits" / "3" / "model.onnx"))
    logits, probabilities, identity = copy.run(["logits", "probabilities", "identity"], {"latent": latent})
    np.testing.assert_array_equal(logits, own.run(["logits"], {"latent": latent})[0])
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-5, atol=1e-30)
    assert (identity.dtype, identity.shape) == (np.uint8, (batch, 32))
    for row in identity:
        assert row[:16].tobytes().hex() == example.HEAD[:32]
        assert row[16:].tobytes().hex() == example.TAIL[:32]


def test_a_bundle_with_rates_gets_a_model_that_decodes_and_an_ensemble(with_rates, tmp_path):
    models = tmp_path / "models"
    triton.write_repository(with_rates, models, max_batch_size=8)
    assert everything_in(models) == {
        "digits/config.pbtxt",
        "digits/labels.txt",
        "digits/3/model.onnx",
        "digits-decode/config.pbtxt",
        "digits-decode/3/model.py",
        "digits-decode/3/rates.json",
        "digits-payload/config.pbtxt",
        "digits-payload/labels.txt",
    }
    assert (models / "digits-payload" / "3").is_dir()  # empty, and Triton does not load the ensemble without it
    tail, decode, ensemble = (read_config(models / f"digits{suffix}") for suffix in ("", "-decode", "-payload"))
    assert (decode.backend, decode.platform, ensemble.platform) == ("python", "", "ensemble")
    assert {config.max_batch_size for config in (tail, decode, ensemble)} == {8}
    assert decode.dynamic_batching == tail.dynamic_batching
    assert [(each.name, each.data_type, [*each.dims]) for each in ensemble.input] == [
        ("payload", model_config_pb2.TYPE_STRING, [1])
    ]
    assert ensemble.input == decode.input
    assert ensemble.output == tail.output
    assert [(each.name, each.data_type, each.dims) for each in decode.output] == [
        (each.name, each.data_type, each.dims) for each in tail.input
    ]
    first, second = ensemble.ensemble_scheduling.step
    assert (first.model_name, dict(first.input_map)) == ("digits-decode", {"payload": "payload"})
    assert (second.model_name, dict(second.input_map)) == ("digits", {key: key for key in first.output_map})
    assert dict(second.output_map) == {output.name: output.name for output in ensemble.output}
    assert set(tail.parameters) == {"head", "tail", "format"}  # it takes no payloads itself
    parameters = {key: value.string_value for key, value in ensemble.parameters.items()}
    key = f"{with_rates.read_rates().key:08x}"
    assert parameters == {"head": example.HEAD, "format": "4", "payload": str(wire.VERSION), "rates": key}
    assert (
        parse_rates((models / "digits-decode" / "3" / "rates.json").read_text(), "it").key
        == with_rates.read_rates().key
    )


def test_a_new_version_brings_its_rates_with_it(with_rates, tmp_path):
    models, before = tmp_path / "models", with_rates.read_rates()
    triton.write_repository(with_rates, models)
    tables = example.rates(steps={"one": 1})
    newer = read_bundle(example.write(tmp_path / "newer", **example.with_rates(tables, files=FILES, version=4)))
    triton.write_repository(newer, models)
    assert before.key != newer.read_rates().key
    for suffix in ("-decode", "-payload"):
        config = read_config(models / f"digits{suffix}")
        assert config.parameters["rates"].string_value == f"{newer.read_rates().key:08x}"
        assert versions_in(models / f"digits{suffix}") >= {"3", "4"}


def test_a_tail_without_rates_replaces_those_before_it_for_payloads_too(bundle, with_rates, tmp_path):
    models = tmp_path / "models"
    triton.write_repository(bundle, models)
    triton.write_repository(rewritten(with_rates, version=4, tail="d" * 64), models)
    assert versions_in(models) == {"digits", "digits-decode", "digits-payload"}
    triton.write_repository(rewritten(bundle, version=5, tail="e" * 64), models)
    assert versions_in(models / "digits") == {"3", "4", "5", "config.pbtxt", "labels.txt"}
    assert versions_in(models / "digits-payload") == {"4", "config.pbtxt", "labels.txt"}  # of the newest digits


def test_a_model_of_another_head_takes_what_decodes_for_the_old_one_away(bundle, with_rates, tmp_path):
    models = tmp_path / "models"
    triton.write_repository(with_rates, models)
    other = rewritten(bundle, version=4, head="c" * 64)
    with pytest.raises(UserError, match="has the tail of head aaaaaaaaaaaa…"):
        triton.write_repository(other, models)
    assert versions_in(models) == {"digits", "digits-decode", "digits-payload"}
    triton.write_repository(other, models, overwrite=True)
    assert versions_in(models) == {"digits"}
    (models / "digits-payload").mkdir()
    (models / "digits-payload" / "config.pbtxt").write_text('platform: "ensemble"')  # not ours
    triton.write_repository(rewritten(bundle, version=4, head="d" * 64), models, overwrite=True)
    assert versions_in(models) == {"digits", "digits-payload"}
    assert versions_in(models / "digits") == {"4", "config.pbtxt", "labels.txt"}
    triton.write_repository(with_rates, models, overwrite=True)
    assert versions_in(models) == {"digits", "digits-decode", "digits-payload"}
    assert versions_in(models / "digits") == {"3", "config.pbtxt", "labels.txt"}


@pytest.mark.parametrize("suffix", ["-decode", "-payload"])
def test_another_folder_in_the_place_of_a_model_that_decodes_is_kept(with_rates, tmp_path, suffix):
    (tmp_path / "models" / f"digits{suffix}").mkdir(parents=True)
    (tmp_path / "models" / f"digits{suffix}" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=f"digits{suffix} is not a model of a Triton repository"):
        triton.write_repository(with_rates, tmp_path / "models", overwrite=True)
    assert everything_in(tmp_path / "models") == {f"digits{suffix}/notes.txt"}


def rewritten(bundle, *, version=3, tail="b" * 64, head=example.HEAD, **changes):
    """The bundle with another manifest."""
    rates = bundle.manifest.rates
    manifest = example.manifest_with_rates(files=FILES) if rates else example.manifest()
    ids = {
        "head": {**manifest["head"], "id": head},
        "tail": {**manifest["tail"], "id": tail, "head": head},
    }
    return write_manifest(bundle.folder, Manifest.from_json({**manifest, "version": version, **ids, **changes}))


def versions_in(model):
    return {path.name for path in model.iterdir()}


def tail_of(model):
    return read_config(model).parameters["tail"].string_value


def test_a_version_with_the_same_head_is_added_to_the_others(bundle, tmp_path):
    model = tmp_path / "models" / "digits"
    triton.write_repository(bundle, tmp_path / "models")
    first = (model / "3" / "model.onnx").read_bytes()
    text = (model / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(f"{text}instance_group [ {{ count: 2 }} ]\n")
    triton.write_repository(rewritten(bundle, version=4, tail="d" * 64), tmp_path / "models")
    triton.write_repository(rewritten(bundle, version=2, tail="e" * 64), tmp_path / "models")
    assert versions_in(model) == {"2", "3", "4", "config.pbtxt", "labels.txt"}
    assert (model / "3" / "model.onnx").read_bytes() == first
    assert tail_of(model) == "d" * 64  # of the newest
    assert read_config(model).instance_group[0].count == 2  # added by hand
    identities = {}
    for version in ("2", "3", "4"):
        session = onnxruntime.InferenceSession(str(model / version / "model.onnx"))
        (row,) = session.run(["identity"], {"latent": np.zeros((1, 5, 6, 3), np.uint8)})[0]
        identities[version] = row[16:].tobytes().hex()
    assert identities == {"2": "e" * 32, "3": "b" * 32, "4": "d" * 32}


def test_a_version_is_replaced_only_on_request_and_the_others_stay(bundle, tmp_path):
    model = tmp_path / "models" / "digits"
    triton.write_repository(bundle, tmp_path / "models")
    triton.write_repository(rewritten(bundle, version=4, tail="d" * 64), tmp_path / "models")
    (tmp_path / "models" / "other").mkdir()
    again = rewritten(bundle, version=4, tail="f" * 64)
    with pytest.raises(UserError, match="digits has version 4: another --version adds one with the same head"):
        triton.write_repository(again, tmp_path / "models")
    assert tail_of(model) == "d" * 64
    triton.write_repository(again, tmp_path / "models", overwrite=True)
    assert versions_in(model) == {"3", "4", "config.pbtxt", "labels.txt"}
    assert tail_of(model) == "f" * 64
    assert versions_in(tmp_path / "models") == {"digits", "other"}


def test_another_head_under_that_name_is_refused_or_replaces_the_model(bundle, tmp_path):
    model = tmp_path / "models" / "digits"
    triton.write_repository(bundle, tmp_path / "models")
    other = rewritten(bundle, version=4, head="c" * 64)
    with pytest.raises(
        UserError, match="has the tail of head aaaaaaaaaaaa…, and this bundle that of head cccccccccccc…"
    ):
        triton.write_repository(other, tmp_path / "models")
    assert versions_in(model) == {"3", "config.pbtxt", "labels.txt"}
    triton.write_repository(other, tmp_path / "models", overwrite=True)
    assert versions_in(model) == {"4", "config.pbtxt", "labels.txt"}
    assert read_config(model).parameters["head"].string_value == "c" * 64


def test_a_version_that_does_not_fit_the_model_is_refused(bundle, tmp_path):
    model = tmp_path / "models" / "digits"
    triton.write_repository(bundle, tmp_path / "models")
    with pytest.raises(UserError, match="has other labels: give another --name, or --overwrite"):
        triton.write_repository(rewritten(bundle, version=4, labels=["a", "b", "c", "d"]), tmp_path / "models")
    newer = rewritten(bundle, version=4)
    text = (model / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(text.replace("identity", "other"))
    with pytest.raises(UserError, match="has other inputs and outputs, or was written by an older version"):
        triton.write_repository(newer, tmp_path / "models")
    (model / "config.pbtxt").write_text("")
    with pytest.raises(UserError, match="does not name the head of its tails"):
        triton.write_repository(newer, tmp_path / "models")
    assert versions_in(model) == {"3", "config.pbtxt", "labels.txt"}


def test_a_folder_that_is_not_a_model_is_never_removed(bundle, tmp_path):
    with pytest.raises(UserError, match="is not a model of a Triton repository"):
        triton.write_repository(bundle, tmp_path, overwrite=True)  # tmp_path/digits is the bundle
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        triton.write_repository(bundle, tmp_path / "file" / "models")
    assert read_bundle(bundle.folder) == bundle


def test_a_full_disk_is_one_line_and_leaves_the_old_model(bundle, tmp_path, monkeypatch):
    triton.write_repository(bundle, tmp_path / "models")

    def full(*_):
        raise OSError(28, "No space left on device")

    before = (tmp_path / "models" / "digits" / "config.pbtxt").read_text()
    monkeypatch.setattr(triton, "_write_tail", full)
    for newer, place in ((rewritten(bundle, version=4), "digits/4"), (rewritten(bundle, head="c" * 64), "digits")):
        with pytest.raises(UserError, match=rf"cannot write .*{place}: no space left on the disk"):
            triton.write_repository(newer, tmp_path / "models", overwrite=True)
        assert everything_in(tmp_path / "models") == {"digits/config.pbtxt", "digits/labels.txt", "digits/3/model.onnx"}
    assert (tmp_path / "models" / "digits" / "config.pbtxt").read_text() == before
