"""From a finished run to a bundle, as a library user exports it."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bottlefit_jax.compare.designs  # noqa: F401  registers the designs that only the comparison uses
from bottlefit_jax.bundle import identity, read_bundle
from bottlefit_jax.codec import Affine, quantize, wire
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import UserError
from export import ExportOptions, assemble, export_bundle
from export.images import read_images
from export.open_files import run_onnx, session_of
from export.student import read_student
from tests.export.finished_run import export_options, exported_once, with_other_bottleneck, write_run


@pytest.fixture(scope="module")
def exported(workdir, once):
    """The folder of a float32 bundle."""
    return exported_once("float32", workdir, once)


def test_the_bundle_holds_the_files_of_its_manifest(exported, workdir):
    assert sorted(path.name for path in exported.iterdir()) == [
        "golden.npz",
        "head.onnx",
        "head.tflite",
        "local.tflite",
        "manifest.json",
        "parity.json",
        "rates.json",
        "rates.png",
        "tail.onnx",
        "tail.stablehlo",
    ]
    manifest = read_bundle(exported).manifest
    assert (manifest.name, manifest.labels) == ("digits", tuple("0123456789"))
    raw = json.loads((exported / "manifest.json").read_text())
    assert raw["image"] == {"height": 32, "width": 32, "order": "RGB", "dtype": "uint8", "resize": 32}
    assert raw["latent"]["shape"] == [5, 5, 3]
    names = read_images(read_student(workdir), "train", limit=20).names
    assert raw["calibration"] == {"split": "train", "count": 20, "sha256": identity(*names)}
    assert raw["head"]["id"] == raw["tail"]["head"]


def test_the_files_compute_what_the_network_computes(exported, workdir):
    parity = json.loads((exported / "parity.json").read_text())
    assert parity["images"] == 60
    assert parity["agreement_percent"] == 100
    assert max(file["largest_difference"] for file in parity["files"].values()) < 1e-4
    images = read_images(read_student(workdir), "val", limit=5)
    latent = read_bundle(exported).manifest.latent
    affine = Affine(np.float32(latent.scale), np.int32(latent.zero_point), np.float32(0))
    device, tail = Interpreter(exported / "head.tflite"), session_of(exported / "tail.onnx")
    sent = np.stack([quantize(device.run(image), affine) for image in images.images])
    logits, probabilities = run_onnx(tail, sent)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(jnp.asarray(logits)), atol=1e-6)
    local = Interpreter(exported / "local.tflite")
    np.testing.assert_allclose(logits, [local.run(image) for image in images.images], atol=0.3)
    restored = jax.export.deserialize(bytearray((exported / "tail.stablehlo").read_bytes()))
    np.testing.assert_allclose(logits, restored.call(sent), atol=1e-4)


def test_the_same_student_gives_the_same_bytes(exported, workdir, tmp_path):
    again, bundle = export_bundle(export_options("float32", workdir, tmp_path / "again")), read_bundle(exported)
    assert read_bundle(tmp_path / "again") == again.bundle
    assert json.loads(again.bundle.path("parity.json").read_text()) == dataclasses.asdict(again.parity)
    for name in ("head.tflite", "head.onnx", "local.tflite", "tail.onnx", "tail.stablehlo", "rates.json"):
        assert again.bundle.path(name).read_bytes() == bundle.path(name).read_bytes(), name
    assert again.bundle.manifest.head == bundle.manifest.head


def test_the_rates_of_a_bundle_are_what_it_sends(exported, workdir):
    """From the files alone: head, payload, tables, tail; the figures are those of manifest and parity."""
    bundle, parity = read_bundle(exported), json.loads((exported / "parity.json").read_text())
    rates, manifest = bundle.read_rates(), bundle.manifest
    assert rates is not None
    assert len(manifest.rates) >= 5
    assert manifest.rates[0].id == "lossless"
    assert manifest.default_rate in {rate.id for rate in manifest.rates}
    evaluation = read_images(read_student(workdir), "val", limit=60)
    device, latent = Interpreter(bundle.path(manifest.head_file("litert").file)), manifest.latent
    affine = Affine(np.float32(latent.scale), np.int32(latent.zero_point), np.float32(0))
    sent = [quantize(device.run(image), affine) for image in evaluation.images]
    tail = session_of(bundle.path(manifest.tail.onnx))
    for entry, measured in zip(manifest.rates, parity["rates"], strict=True):
        payloads = [wire.encode(each, rates.get(entry.id)) for each in sent]
        assert entry.bytes_mean == np.mean([len(payload) for payload in payloads])
        received, problems = wire.decode_batch(payloads, rates)
        assert not any(problems)
        if entry.id == "lossless":
            np.testing.assert_array_equal(received, sent)
        (logits,) = run_onnx(tail, received, "logits")
        top1 = 100 * np.mean(logits.argmax(1) == evaluation.labels)
        assert (entry.top1, measured["top1"]) == pytest.approx((top1, top1))
        assert (measured["id"], tuple(measured["steps"])) == (entry.id, entry.steps)
    assert parity["raw"]["bytes"] == 75
    assert (bundle.folder / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_a_bundle_can_keep_the_rates_of_an_earlier_one(exported, workdir, tmp_path):
    options = ExportOptions(workdir, tmp_path / "x", head="float32", images=10, calibration=20, rates_from=exported)
    again, bundle = export_bundle(options).bundle, read_bundle(exported)
    assert again.path("rates.json").read_bytes() == bundle.path("rates.json").read_bytes()
    assert [rate.id for rate in again.manifest.rates] == [rate.id for rate in bundle.manifest.rates]
    rates = again.read_rates()
    assert rates is not None
    assert rates.key == bundle.read_rates().key


def test_no_file_has_a_path_of_the_machine_that_wrote_it(exported, workdir):
    package = Path(assemble.__file__).parents[1]
    places = {str(place).encode() for place in (workdir, exported, package, Path(sys.prefix))}
    for path in exported.iterdir():
        data = path.read_bytes()
        assert not [place for place in places if place in data], path.name
        assert not re.search(rb"[\w./-]{4,}\.py", data), path.name


@pytest.mark.parametrize(("design", "side"), [("patch", 5), ("dct", 4)])
def test_a_student_of_our_designs_exports_like_any_other(tmp_path, once, design, side):
    run_folder = once(f"{design}-run", lambda folder: write_run(folder, design=design))
    exported = export_bundle(
        ExportOptions(run_folder, tmp_path / "bundle", head="float32", local=True, images=40, calibration=20)
    )
    parity, manifest = exported.parity, read_bundle(tmp_path / "bundle").manifest
    assert parity.agreement_percent == 100
    assert sorted(parity.files) == ["head.onnx", "head.tflite", "local.tflite", "tail.onnx", "tail.stablehlo"]
    assert max(file.largest_difference for file in parity.files.values()) < 1e-4
    assert (manifest.latent.shape, manifest.model.bottleneck["design"]) == ((side, side, 3), design)


@pytest.mark.parametrize("design", ["autoencoder", "reduction", "spinn"])
def test_a_device_that_runs_the_teachers_layers_is_refused(workdir, tmp_path, design):
    channels = read_student(workdir).module.cut_channels if design == "spinn" else 3
    run_folder = with_other_bottleneck(workdir, tmp_path / "run", design=design, channels=channels, image_size=64)
    message = rf"'{design}' cannot be exported.*those that can are 'bottlefit', 'patch' and 'dct'$"
    with pytest.raises(UserError, match=message):
        export_bundle(ExportOptions(run_folder, tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_an_int8_head_is_refused_for_a_student_of_fewer_bits(workdir, tmp_path):
    run_folder = with_other_bottleneck(workdir, tmp_path / "run", bits=4)
    with pytest.raises(UserError, match="--head int8 sends 8 bits a value, and this student was trained for 4"):
        export_bundle(ExportOptions(run_folder, tmp_path / "x"))


def test_a_triton_repository_that_cannot_be_written_leaves_the_bundle(workdir, tmp_path, monkeypatch):
    def full(*_, **__):
        raise UserError("cannot write models: no space left on the disk")

    monkeypatch.setattr(assemble, "write_repository", full)
    options = ExportOptions(
        workdir, tmp_path / "x", head="float32", images=10, calibration=10, triton=tmp_path / "models"
    )
    with pytest.raises(UserError, match="x was written, but not the Triton model repository: cannot write models"):
        export_bundle(options)
    assert read_bundle(tmp_path / "x").manifest.name == "x"


def test_an_export_that_fails_leaves_the_old_bundle(workdir, tmp_path, monkeypatch):
    old = tmp_path / "bundle"
    old.mkdir()
    (old / "manifest.json").write_text("old")

    def fail(options, folder):
        (folder / "manifest.json").write_text("new")
        (folder / "head.tflite").read_bytes()

    monkeypatch.setattr(assemble, "_export", fail)
    with pytest.raises(UserError, match="bundle: No such file"):
        export_bundle(ExportOptions(workdir, old, overwrite=True))
    assert (old / "manifest.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_classes_with_the_same_name_get_their_wnids_as_well():
    labels = [["n01", "crane"], ["n02", "crane", "bird"], ["n03", "cat", "house cat"], ["dog"]]
    assert assemble.class_names(labels) == ["crane (n01)", "crane (n02)", "cat", "dog"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_a_trained_patch_student_makes_a_bundle(demo, tmp_path, precision):
    trained = demo("--config.student.bottleneck.design=patch", whole=True)
    assert (trained.code, trained.err) == (0, ""), trained.err
    options = ExportOptions(trained.workdir, tmp_path / "bundle", head=precision, local=True)
    parity = export_bundle(options).parity
    assert parity.flax["top1"] > 80
    assert parity.flax["top1"] - parity.raw["top1"] <= 0.5
    assert parity.flax_float["top1"] - parity.bundle["top1"] <= 0.6
    assert next(rate for rate in parity.rates if rate["id"] == parity.default_rate)["bytes_mean"] < 90
    if precision == "int8":
        assert parity.files["head.tflite"].largest_difference <= 8


@pytest.mark.parametrize("size", ["16k", "3m"])
def test_a_full_disk_is_one_line_and_leaves_nothing(workdir, tmp_path, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a full disk is made with mount, which needs root here")
    try:
        filler = disk / "filler"
        filler.write_bytes(bytes(2_600_000 if size == "3m" else 10))
        with pytest.raises(UserError) as caught:
            export_bundle(ExportOptions(workdir, disk / "x", head="float32", images=20, local=True))
        left = [path.name for path in disk.iterdir()]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert str(caught.value) == f"cannot write {disk / 'x'}: no space left on the disk"
    assert left == ["filler"]
