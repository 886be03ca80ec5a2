"""Every test has 8 CPU devices, and a warning is an error (pyproject.toml)."""

import fcntl
import hashlib
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compilation, often of the same program: workers and the commands under test share a cache.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# It takes less than half of the time without what makes large programs fast; ours are small and run a few times.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

# A shell's background job ignores SIGINT, and so would the commands that the tests start from it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax  # noqa: E402  after its environment

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The files that take longest, the longest first: they are begun first, so that no worker waits for another at the end.
LONGEST = (
    "compare/test_command.py",
    "test_main.py",
    "test_tutorial.py",
    "training/test_resume.py",
    "export/test_assemble.py",
    "export/test_bundle.py",
    "test_readme.py",
    "experiment/test_whole_runs.py",
    "training/test_two_processes.py",
    "models/test_bottleneck.py",
    "links/test_proxy.py",
    "training/test_step.py",
    "models/test_against_more_references.py",
    "models/test_against_reference.py",
    "export/test_tail.py",
    "export/test_tracing.py",
    "models/test_network.py",
    "convert/test_torch_names.py",
    "evaluation/test_networks.py",
    "test_deployment.py",
)


def pytest_collection_modifyitems(items):
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    assert all(path.exists() for path in places), "LONGEST names a file that is not there"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Call it with a name and what makes something at a path: the path, made once for all workers of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def path_of(name, make):
        path = folder / name
        with (folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not path.exists():
                make(path)
        return path

    return path_of


@pytest.fixture(scope="session")
def demo(once):
    """Call it with flags: what the demo's command did with them, once for all workers of pytest-xdist.

    `workdir` is to be left as it is; `code`, `out` and `err` are what the command ended with. A `whole` demo trains for
    minutes, with the compiler's passes that a user has: they pay there.
    """
    from tests.test_main import run

    def train(*flags, whole=False):
        environment = {"XLA_FLAGS": ""} if whole else {}

        def make(answer):
            answer.write_text(json.dumps(run(*flags, f"--workdir={answer.with_suffix('')}", **environment)))

        answer = once(f"demo-{hashlib.sha256(repr((flags, whole)).encode()).hexdigest()[:16]}.json", make)
        code, out, err = json.loads(answer.read_text())
        return SimpleNamespace(workdir=answer.with_suffix(""), code=code, out=out, err=err)

    return train


@pytest.fixture(scope="session", autouse=True)
def few_images_for_tables():
    """Make the code tables of 100 training images: a tenth of the time, and payloads a few percent larger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottlefit_jax.evaluation.rates.MOST_IMAGES", 100)
        yield
