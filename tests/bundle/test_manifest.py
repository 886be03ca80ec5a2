import dataclasses
import json
import os

import pytest

from bottlefit_jax.bundle import (
    Calibration,
    HeadFile,
    Latent,
    Local,
    Manifest,
    Tensor,
    folder,
    identity,
    read_bundle,
    write_manifest,
)
from bottlefit_jax.errors import UserError
from tests.bundle import example

REQUIRED = [(key,) for key in example.manifest() if key != "extensions"]
for _part in ("model", "image", "latent", "head", "tail", "calibration"):
    REQUIRED += [(_part, key) for key in example.manifest()[_part]]
REQUIRED += [("files", "tail.onnx", "sha256"), ("files", "tail.onnx", "bytes"), ("versions", "bottlefit_jax")]
REQUIRED += [("heads", 0, key) for key in example.manifest()["heads"][0]] + [("heads", 1, "output", "shape")]
OLD_REQUIRED = [(key,) for key in example.manifest_of_format_2()]
OLD_REQUIRED += [("head", key) for key in example.manifest_of_format_2()["head"]]
RATE = example.with_rates()["rates"][0]


def dotted(path):
    return ".".join(map(str, path))


def parent_of(value, path):
    for key in path[:-1]:
        value = value[key]
    return value


def refusal(path):
    """The message of read_bundle, which must be one line."""
    with pytest.raises(UserError) as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_valid_manifest_becomes_dataclasses(tmp_path):
    manifest = read_bundle(example.write(tmp_path / "digits")).manifest
    assert manifest.model.options == {"width": 16}
    assert manifest.labels == ("zero", "one", "two", 'the "three"')
    assert manifest.latent == Latent((5, 6, 3), "uint8", 8, 0.02, 128)
    assert manifest.local is None
    assert manifest.calibration == Calibration("train", 2, "c" * 64)


def test_json_values_survive_the_round_trip_in_their_order():
    values = example.manifest_with_rates(local={"litert": "local.tflite", "top1": 74.8})
    values["model"]["options"] = {"sizes": [1, [2, 3]], "none": None}
    written = Manifest.from_json(values).to_json()
    assert written == values
    assert json.dumps(written) == json.dumps(values)
    tuples = dataclasses.replace(Manifest.from_json(values).model, options={"sizes": (1, (2, 3)), "none": None})
    assert dataclasses.replace(Manifest.from_json(values), model=tuples).to_json() == values


@pytest.mark.parametrize("path", REQUIRED, ids=dotted)
def test_a_missing_field_is_named(tmp_path, path):
    values = example.manifest()
    del parent_of(values, path)[path[-1]]
    assert f"{path[-1]} is missing" in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize("path", REQUIRED, ids=dotted)
def test_a_field_of_another_type_is_named(tmp_path, path):
    values = example.manifest()
    parent_of(values, path)[path[-1]] = True
    assert f"{path[-1]} is True; it must be" in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize(
    "path", [(), ("model",), ("image",), ("latent",), ("head",), ("heads", 1), ("tail",), ("calibration",)]
)
def test_an_unknown_field_is_named(tmp_path, path):
    values = example.manifest()
    parent_of(values, (*path, "extra"))["extra"] = 1
    assert "extra is not known" in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        (("name",), "../digits", "name is '../digits'; it must match"),
        (("name",), "digits\n", "name is 'digits\\n'; it must match"),
        (("version",), 0, "version is 0; it must be at least 1"),
        (("version",), 2**31, "it must be at most 2147483647"),
        (("model", "num_classes"), 0, "model.num_classes is 0; it must be at least 1"),
        (("model", "num_classes"), 5, "it has 4 labels for 5 classes"),
        (("image", "order"), "BGR", "image.order is 'BGR'; it must be 'RGB'"),
        (("image", "resize"), 31, "image.resize is 31, too small to cut 32 x 32 from it"),
        (("latent", "shape"), [5, 6], "latent.shape is [5, 6]; it must have at least 3 items"),
        (("latent", "shape"), [5, 0, 3], "latent.shape[1] is 0; it must be at least 1"),
        (("latent", "dtype"), "int8", "latent.dtype is 'int8'; it must be 'uint8'"),
        (("latent", "bits"), 9, "latent.bits is 9; it must be at most 8"),
        (("latent", "bits"), 7, "latent.zero_point is 128; the largest value of 7 bits is 127"),
        (("latent", "scale"), 0, "latent.scale is 0; it must be above 0"),
        (("latent", "zero_point"), 256, "latent.zero_point is 256; it must be at most 255"),
        (("latent", "zero_point"), 1.5, "latent.zero_point is 1.5; it must be an integer"),
        (("head", "id"), "A" * 64, "head.id is 'AAAA"),
        (("heads", 0, "precision"), "int4", "precision is 'int4'; it must be 'int8' or 'float16' or 'float32'"),
        (("heads", 0, "runtime"), "tflite", "heads[0].runtime is 'tflite'; it must be 'litert' or 'onnx'"),
        (("heads", 0, "runtime"), "onnx", "it has 2 heads for onnx"),
        (("heads", 0, "input", "dtype"), "int8", "heads[0].input.dtype is 'int8'; it must be 'uint8' or 'float32'"),
        (
            ("heads", 0, "input", "shape"),
            [1, 9, 32, 3],
            "heads[0].input.shape is [1, 9, 32, 3]; it must be [1, 32, 32, 3]",
        ),
        (("heads", 1, "output", "shape"), [1, 5, 6, 4], "output.shape is [1, 5, 6, 4]; it must be [1, 5, 6, 3]"),
        (("heads",), [], "heads is []; it must have at least 1 items"),
        (("default_rate",), "4", "default_rate is '4'; it must be 'raw'"),
        (("rates",), [{**RATE, "id": "raw"}], "rates[0].id is 'raw', which is the name of what is sent without a rate"),
        (("rates",), [{**RATE, "id": "a b"}], "rates[0].id is 'a b'; it must match"),
        (("rates",), [RATE, RATE], "it has 2 rates lossless"),
        (("rates",), [{**RATE, "steps": [1, 1]}], "rates[0].steps has 2 steps for 3 channels"),
        (("rates",), [{**RATE, "steps": [1, 0, 1]}], "rates[0].steps[1] is 0; it must be at least 1"),
        (("rates",), [{**RATE, "top1": 101}], "rates[0].top1 is 101; it must be at most 100"),
        (("rates",), [{**RATE, "top5": 1}], "rates[0].top5 is not known"),
        (("rates",), [RATE], "files has no rates.json"),
        (("rates",), [RATE, {**RATE, "id": "4", "tables": "head.onnx"}], "all rates share 'rates.json'"),
        (("rates",), [RATE] * 17, "it must have at most 16 items"),
        (("extensions",), [1], "extensions is [1]; it must be an object"),
        (("labels",), ["a\nb", "c", "d", "e"], "labels[0] is 'a\\nb'; it must match"),
        (("local",), {"litert": "local.tflite", "top1": 74.8}, "files has no local.tflite"),
        (("files",), {}, "files is {}; it must have at least 1 entries"),
        (("tail", "head"), "c" * 64, "its tail belongs to head cccccccccccc…, not to its head aaaaaaaaaaaa…"),
        (("tail", "onnx"), "../tail.onnx", "tail.onnx is '../tail.onnx'; it must match"),
        (("heads", 0, "file"), "/etc/passwd", "heads[0].file is '/etc/passwd'; it must match"),
        (("heads", 0, "file"), "a/../../b", "heads[0].file is 'a/../../b'; it must match"),
        (("heads", 0, "file"), "..\\b", "heads[0].file is '..\\\\b'; it must match"),
    ],
)
def test_a_value_out_of_range_is_quoted(tmp_path, path, wrong, message):
    values = example.manifest()
    parent_of(values, path)[path[-1]] = wrong
    assert message in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a manifest: Expecting value"),
        ("[1]", "the manifest is [1]; it must be an object"),
        ('{"name": "a", "name": "b"}', "is not a manifest: the key 'name' is repeated"),
        ('{"latent": NaN}', "is not a manifest: NaN is not JSON"),
        ("[" * 100_000, "is not a manifest: it is nested too deeply"),
        ('{"format": 1e999}', "format is inf; it must be 1"),
        ('{"version": ' + "9" * 5000 + "}", "is not a manifest: Exceeds the limit"),
        (b"\xff\xfe", "is not a manifest: 'utf-8' codec"),
    ],
)
def test_a_file_that_is_not_a_manifest_is_refused_in_one_line(tmp_path, text, message):
    example.write(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refusal(tmp_path)


def test_a_manifest_that_is_too_large_is_not_read_into_memory(tmp_path):
    example.write(tmp_path)
    os.truncate(tmp_path / "manifest.json", folder.MAX_BYTES + 1)
    assert "a manifest has at most 67,108,864" in refusal(tmp_path)


def test_a_newer_format_names_the_version_that_reads_it(tmp_path):
    example.write(tmp_path, format=5, versions={"bottlefit_jax": "7.1"}, shape="unknown")
    assert "has format 5; this is bottlefit-jax" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("which reads formats 1 to 4; bottlefit-jax 7.1, which wrote it, reads it")
    example.write(tmp_path, format=5, versions=None)
    assert refusal(tmp_path).endswith("a newer one is needed")


def test_format_3_is_read_without_golden_images_and_without_the_accuracy_of_the_local_network(tmp_path):
    files = {**example.FILES, "local.tflite": b"all"}
    values = example.manifest_of_format_3(local={"litert": "local.tflite"}, files=example.describe(files))
    example.write(tmp_path, files=files)
    old = read_bundle(example.write_values(tmp_path, values)).manifest
    assert (old.format, old.golden, old.local) == (3, None, Local("local.tflite", None))
    assert old.to_json() == {**values, "format": 4, "golden": None, "local": {"litert": "local.tflite", "top1": None}}


@pytest.mark.parametrize("change", [{"golden": None}, {"local": {"litert": "local.tflite", "top1": 1.0}}])
def test_format_3_has_nothing_of_format_4(tmp_path, change):
    assert "is not known" in refusal(example.write_values(tmp_path, example.manifest_of_format_3(**change)))


FORMAT_1 = {"split": "train", "pictures": ["1.png", "2.png"]}


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_format_2_is_read_as_a_bundle_of_two_heads_without_rates(tmp_path, precision):
    values = example.manifest_of_format_2()
    values["head"]["precision"] = precision
    old = read_bundle(example.write_values(tmp_path, values))
    expected = example.manifest(heads=example.heads(values["image"], values["latent"], precision))
    assert old.manifest.to_json() == expected
    assert (old.manifest.format, old.manifest.default_rate, old.read_rates()) == (2, "raw", None)


def test_format_1_is_read_with_the_digest_of_its_calibration_names(tmp_path):
    values = example.manifest_of_format_2(format=1, calibration=FORMAT_1)
    old = read_bundle(example.write_values(tmp_path / "old", values)).manifest
    assert old.calibration == Calibration("train", 2, identity("1.png", "2.png"))
    new = read_bundle(example.write(tmp_path / "new")).manifest
    assert dataclasses.replace(old, format=4, calibration=new.calibration) == new
    assert old.to_json() == example.manifest(calibration=dataclasses.asdict(old.calibration))


@pytest.mark.parametrize(
    ("written", "calibration", "message"),
    [
        (1, {"split": "train"}, "calibration.pictures is missing"),
        (1, {**FORMAT_1, "pictures": ["a", 1]}, "calibration.pictures[1] is 1; it must be a string"),
        (2, FORMAT_1, "calibration.count is missing; calibration.sha256 is missing; calibration.pictures is not known"),
    ],
)
def test_a_calibration_of_another_format_is_refused(tmp_path, written, calibration, message):
    values = example.manifest_of_format_2(format=written, calibration=calibration)
    assert message in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize("path", OLD_REQUIRED, ids=dotted)
def test_a_missing_field_of_format_2_is_named(tmp_path, path):
    values = example.manifest_of_format_2()
    del parent_of(values, path)[path[-1]]
    assert f"{path[-1]} is missing" in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize("key", example.NEW_IN_3)
def test_fields_of_format_3_are_not_known_in_format_2(tmp_path, key):
    values = example.manifest_of_format_2(**{key: example.manifest()[key]})
    assert f"{key} is not known" in refusal(example.write_values(tmp_path, values))


def test_extensions_may_be_missing_hold_anything_and_survive_a_rewrite(tmp_path):
    values = example.manifest()
    del values["extensions"]
    assert read_bundle(example.write_values(tmp_path / "without", values)).manifest.extensions == {}
    folder = example.write(tmp_path / "with", extensions={"org.example": {"deep": [1, None, {"a": 0.5}]}})
    manifest = write_manifest(folder, read_bundle(folder).manifest).manifest
    assert manifest == read_bundle(folder).manifest
    assert manifest.extensions == {"org.example": {"deep": [1, None, {"a": 0.5}]}}


def test_a_manifest_gives_the_head_of_a_runtime_and_the_files_of_a_device():
    manifest = Manifest.from_json(example.manifest_with_rates())
    assert manifest.head_file("onnx") == HeadFile(
        "onnx", "head.onnx", "float32", Tensor("float32", (1, 32, 32, 3)), Tensor("float32", (1, 5, 6, 3))
    )
    assert manifest.device_files() == ("head.tflite", "rates.json")
    assert dataclasses.replace(manifest, rates=()).device_files("onnx") == ("head.onnx",)
    one = dataclasses.replace(manifest, heads=manifest.heads[1:])
    with pytest.raises(UserError, match=r"^the bundle has no head for litert, only for onnx$"):
        one.device_files()


def test_an_identity_depends_on_every_byte_and_on_where_parts_end():
    assert identity("ab", b"c") == identity(b"ab", "c")
    assert len({identity("ab", "c"), identity("a", "bc"), identity("abc"), identity("abc", ""), identity()}) == 5
