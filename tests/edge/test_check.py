"""The command that a person runs on a new device, on a bundle as `export` wrote it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from bottlefit_jax.bundle import read_bundle, write_manifest
from bottlefit_jax.bundle.golden import read_golden, write_golden
from bottlefit_jax.edge import check
from bottlefit_jax.errors import UserError
from tests.edge.server import Tail, serve
from tests.export.finished_run import exported, workdir

__all__ = ["exported", "workdir"]  # fixtures


def changed(folder, target, **changes):
    """A copy of a bundle whose golden images are others."""
    shutil.copytree(folder, target)
    bundle = read_bundle(target)
    write_golden(target / bundle.manifest.golden, dataclasses.replace(read_golden(bundle), **changes))
    write_manifest(target, bundle.manifest)
    return target


def findings(capsys, *argv):
    code = check.main([str(each) for each in argv] + ["--json"])
    return code, {each["what"]: each for each in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_the_machine_that_exported_a_bundle_finds_no_difference(exported, runtime, capsys):
    code, found = findings(capsys, "--bundle", exported, "--runtime", runtime)
    rates = len(read_bundle(exported).manifest.rates)
    file = {"litert": "head.tflite", "onnxruntime": "head.onnx"}[runtime]
    assert (code, list(found)) == (0, [f"{file} by {runtime}", f"payloads at {rates} rates", "local.tflite"])
    assert found[f"{file} by {runtime}"]["difference"].partition(" (")[0].endswith("differ, by 0 steps at most")
    assert found["local.tflite"]["difference"].startswith("5 of 5 classes are equal")
    assert all(each["ms"] > 0 for each in found.values())


def test_a_device_without_the_other_files_checks_what_it_has(exported, tmp_path, capsys):
    manifest = read_bundle(exported).manifest
    for name in (*manifest.device_files("litert"), manifest.golden, "manifest.json"):
        shutil.copy(exported / name, tmp_path)
    assert check.main(["--bundle", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["head.tflite", "payloads"]


def test_every_difference_is_named_and_is_exit_code_1(exported, tmp_path, capsys):
    golden = read_golden(read_bundle(exported))
    head = {name: np.roll(latents, 1, axis=2) for name, latents in golden.latents.items()}
    payloads = {id: "0" * 64 if id == "lossless" else digest for id, digest in golden.payloads.items()}
    other = changed(exported, tmp_path / "b", latents=head, payloads=payloads, local=golden.local[:, ::-1].copy())
    assert check.main(["--bundle", str(other), "--runtime", "litert"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [("DIFFERS" in line) for line in lines] == [True, True, True]
    assert "other bytes at lossless;" in lines[1]
    assert "of 5 classes are equal" in lines[2]


def test_a_step_is_allowed_to_a_float_head_and_eight_to_another(exported, tmp_path, capsys):
    bundle = read_bundle(exported)
    golden, is_int8 = read_golden(bundle), bundle.manifest.heads[0].precision == "int8"
    for steps, same in ((1, True), (3, is_int8), (9, False)):
        value = golden.latents["litert"]
        moved = value + (value < 200) * steps if is_int8 else value + np.float32(steps * bundle.manifest.latent.scale)
        other = changed(
            exported, tmp_path / f"{steps}", latents={**golden.latents, "litert": moved.astype(value.dtype)}
        )
        assert check.main(["--bundle", str(other), "--runtime", "litert"]) == int(not same), steps
        assert f"by {steps} steps at most" in capsys.readouterr().out


def test_the_answers_of_a_server_are_compared_too(exported, capsys):
    bundle = read_bundle(exported)
    tail = Tail(bundle.manifest.to_json())  # another network: it says nothing about these latents
    running, port = serve(tail)
    try:
        code, found = findings(capsys, "--bundle", exported, "--server", f"localhost:{port}")
    finally:
        running.stop(0).wait()
    assert (code, found[f"the tail on localhost:{port}"]["same"]) == (1, False)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--tls"], "--tls goes with --server HOST:PORT only"),
        (["--providers", "gpu"], "--providers is 'gpu'; give some of tensorrt, cuda, cpu"),
        (["--runtime", "onnx"], "argument --runtime: invalid choice: 'onnx'"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(argv, message, tmp_path):
    with pytest.raises(UserError, match=message):
        check.parse(["--bundle", str(tmp_path), *argv])


def test_a_bundle_without_golden_images_says_so(rated):
    with pytest.raises(UserError, match="has no golden images: bottlefit-jax exports them since format 4"):
        check.check(check.CheckOptions(rated))
