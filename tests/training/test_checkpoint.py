"""Checkpoints: the last and the best are kept, and a damaged one is skipped with a warning that names it."""

import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.training.checkpoint import StageCheckpoints, digest, load_meta, load_variables, save_variables
from bottlefit_jax.training.network_meta import NetworkMeta


@pytest.fixture
def state():
    params = {"conv": {"kernel": np.arange(600, dtype=np.float32).reshape(2, 3, 100)}, "fc": {"bias": np.ones(4)}}
    with jax.numpy_dtype_promotion("standard"):
        return {"step": np.int32(7), "params": params, "opt_state": jax.device_get(optax.adam(1e-3).init(params))}


# Where a file is damaged, TensorStore's threads report a closed event loop; a command does not print that.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(folder, state, steps):
    checkpoints = StageCheckpoints(folder)
    for step, top1 in steps:
        checkpoints.save(step, {**state, "step": np.int32(step)}, {"seconds": 1.5}, top1=top1)
    checkpoints.close()


def damage(checkpoint):
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.parent.name == "d"]
    assert files
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_the_last_and_the_best_are_kept_bit_identical(tmp_path, state):
    save(tmp_path / "stage1", state, [(1, 10.0), (2, 30.0), (3, 20.0), (4, None), (5, None)])
    assert names(tmp_path / "stage1") == ["2", "5"]
    checkpoints = StageCheckpoints(tmp_path / "stage1")
    last, best = checkpoints.latest(state), checkpoints.best(state)
    assert (last.step, best.step) == (5, 2)
    assert last.meta["seconds"] == 1.5
    assert digest({**last.state, "step": state["step"]}) == digest(state)
    assert jax.tree.structure(last.state) == jax.tree.structure(state)
    checkpoints.close()


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, state, caplog):
    folder = tmp_path / "stage1"
    save(folder, state, [(1, 30.0), (2, 10.0)])
    damage(folder / "2")
    checkpoints = StageCheckpoints(folder)
    assert checkpoints.latest(state).step == 1
    assert f"skipped the damaged checkpoint {folder / '2'}" in caplog.text
    checkpoints.save(2, state, {"seconds": 2.0})  # the run reaches that step again
    checkpoints.close()
    assert names(folder) == ["1", "2", "2.damaged"]


def test_arrays_that_differ_from_their_digest_are_detected(tmp_path, state, caplog):
    save(tmp_path / "stage1", state, [(1, 30.0)])
    meta = tmp_path / "stage1" / "1" / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"digest": "0" * 64}))
    checkpoints = StageCheckpoints(tmp_path / "stage1")
    assert checkpoints.latest(state) is None
    assert "differ from those that were saved" in caplog.text
    checkpoints.close()


def test_an_incomplete_checkpoint_is_named_and_deleted(tmp_path, state, caplog):
    save(tmp_path / "stage1", state, [(1, 30.0)])
    half = tmp_path / "stage1" / "2.orbax-checkpoint-tmp"
    half.mkdir()
    checkpoints = StageCheckpoints(tmp_path / "stage1")
    assert checkpoints.latest(state).step == 1
    assert f"skipped {half}" in caplog.text
    assert not half.exists()
    checkpoints.close()


def described(name, labels=(), **keys):
    return NetworkMeta(name=name, num_classes=1, bottleneck=None, labels=labels, **keys)


def test_variables_are_read_back_with_their_description(tmp_path, state):
    save_variables(tmp_path / "net", {"params": state["params"]}, described("resnet18", labels=(("a", "b"),)))
    variables, meta = load_variables(tmp_path / "net")
    assert digest(variables) == digest({"params": state["params"]})
    assert meta == described("resnet18", labels=(("a", "b"),), digest=digest(variables))
    assert load_meta(tmp_path / "net") == meta
    save_variables(tmp_path / "net", {"params": {"x": np.zeros(3)}}, described("other"))
    assert load_variables(tmp_path / "net")[1].name == "other"


def test_missing_or_damaged_weights_are_a_user_error(tmp_path, state):
    with pytest.raises(UserError, match="no weights at"):
        load_variables(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="does not hold a whole network"):
        load_variables(tmp_path / "empty")
    save_variables(tmp_path / "net", {"params": state["params"]}, described("resnet18"))
    damage(tmp_path / "net")
    with pytest.raises(UserError, match=r"net (is damaged|does not hold a whole network)"):
        load_variables(tmp_path / "net")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield Path(folder)
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_a_user_error(small_disk):
    noise = np.random.default_rng(0).integers(0, 2**31, 2_000_000, np.int32)
    checkpoints = StageCheckpoints(small_disk / "stage1")

    def fill():
        checkpoints.save(1, {"noise": noise}, {"seconds": 0.0})
        checkpoints.wait()

    with pytest.raises(UserError, match=r"no space left on the disk of .*stage1"):
        fill()
