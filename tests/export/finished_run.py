"""What a finished run leaves in its workdir, without the training."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest

from bottlefit_jax import models
from bottlefit_jax.training.checkpoint import save_variables
from bottlefit_jax.training.network_meta import NetworkMeta
from bottlefit_jax.training.sharding import to_host
from export import ExportOptions, export_bundle
from export.student import read_student
from tests.test_main import ROOT


@pytest.fixture(scope="session")
def workdir(once):
    """A run on the digits; tests do not change it."""
    return once("digits-run", write_run)


@pytest.fixture(scope="session")
def patch_workdir(once):
    """The same with the design `patch`."""
    return once("patch-run", lambda folder: write_run(folder, design="patch"))


@pytest.fixture(scope="module", params=["float32", "int8"])
def exported(request, workdir, once):
    """The folder of a bundle of `workdir` with a local file; tests do not change it."""
    return exported_once(request.param, workdir, once)


def exported_once(head, workdir, once):
    return once(f"digits-{head}", lambda folder: export_bundle(export_options(head, workdir, folder)))


def export_options(head, workdir, folder):
    return ExportOptions(workdir, folder, head=head, name="digits", local=True, images=60, calibration=20)


def write_run(workdir, **bottleneck):
    workdir.mkdir()
    spec = importlib.util.spec_from_file_location("digits", ROOT / "configs" / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (workdir / "config.json").write_text(json.dumps(module.get_config().to_dict()))
    plan = {"channels": 3, "version": 2, "bits": 8, "image_size": 32} | bottleneck
    student = models.create("resnet18", num_classes=10, bottleneck=plan, width=8)
    variables = to_host(jax.jit(student.init)(jax.random.key(0, impl="unsafe_rbg"), jnp.zeros((1, 32, 32, 3))))
    meta = NetworkMeta(
        name="resnet18",
        options={"width": 8},
        num_classes=10,
        bottleneck=plan,
        labels=tuple((str(digit),) for digit in range(10)),
        image_size=32,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    save_variables(workdir / "student", variables, meta)
    return workdir


def with_other_bottleneck(workdir, folder, **changes):
    """A copy of the run in `folder` whose student's bottleneck has these values, and the old weights."""
    folder.mkdir()
    (folder / "config.json").write_text((workdir / "config.json").read_text())
    student = read_student(workdir)
    plan = {**(student.meta.bottleneck or {}), **changes}
    save_variables(folder / "student", student.variables, dataclasses.replace(student.meta, bottleneck=plan))
    return folder
