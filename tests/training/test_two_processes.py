"""Two processes, joined by jax.distributed, train the same weights as one process."""

import json
import socket

import numpy as np
import pytest

from bottlefit_jax.training.checkpoint import load_variables
from tests.test_main import SMALL, run, start

# Few steps: a long training amplifies differences in the last bit of a sum, which are not tested here.
ARGUMENTS = (*SMALL, *(f"--config.stages.{stage}.batch_size=240" for stage in ("teacher", "stage1", "stage2")))


def start_two(*arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_NUM_CPU_DEVICES": "1"}
    return [start(*arguments, **common, JAX_PROCESS_ID=str(index)) for index in range(2)]


def finish(processes):
    return [(process.returncode, out, err) for process in processes for out, err in [process.communicate(timeout=600)]]


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(*ARGUMENTS, f"--workdir={one}", JAX_NUM_CPU_DEVICES="2")[0] == 0
    for code, _, err in finish(start_two(*ARGUMENTS, f"--workdir={two}")):
        assert code == 0, err
    for name in ("teacher", "student"):
        alone, together = load_variables(one / name)[0], load_variables(two / name)[0]
        for part in alone["params"]:
            a, b = ravel(alone["params"][part]), ravel(together["params"][part])
            np.testing.assert_allclose(b, a, atol=2e-3 * np.abs(a).max(), err_msg=f"{name} {part}")
    records = [[json.loads(line) for line in (d / "metrics.jsonl").read_text().splitlines()] for d in (one, two)]
    for a, b in zip(*records, strict=True):
        np.testing.assert_allclose(b["train_loss"], a["train_loss"], rtol=1e-3)
    reports = [json.loads((d / "report.json").read_text()) for d in (one, two)]
    one, two = ({rate["id"]: rate["bytes_mean"] for rate in report["rates"]} for report in reports)
    assert two["raw"] == one["raw"] == 75
    assert two["lossless"] == pytest.approx(one["lossless"], rel=0.05)


def ravel(tree):
    leaves = [
        np.ravel(leaf) for part in tree.values() for leaf in ([part] if not isinstance(part, dict) else flat(part))
    ]
    return np.concatenate(leaves)


def flat(tree):
    for leaf in tree.values():
        yield from flat(leaf) if isinstance(leaf, dict) else [np.ravel(leaf)]
