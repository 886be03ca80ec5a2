"""Devices, the one-axis mesh over them, and how arrays come onto it.

Batches are split over the axis "data"; everything else is whole on every device. Under `jax.jit` that alone makes
gradients and batch statistics those of the global batch.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bottlefit_jax.errors import UserError

# XLA's CPU backend orders operations for many cores unless told otherwise; in program order they reuse what lies in
# the cache, which took a fifth off the CPU time of a step. As an option of `jax.jit` it has no effect.
IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler"


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_devices() -> None:
    """Prepare JAX before its first use: one CPU device a core, several hosts where the environment names them.

    XLA's convolutions use several cores badly, so that on a CPU one device per core is faster than one device.
    Several processes find each other by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
        UserError: the environment names a coordinator but not the number of processes or this process's own.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        try:
            count, index = (int(os.environ[key]) for key in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
        except (KeyError, ValueError):
            raise UserError(
                f"JAX_COORDINATOR_ADDRESS is {address!r}: set JAX_NUM_PROCESSES and JAX_PROCESS_ID to numbers too"
            ) from None
        jax.distributed.initialize(address, num_processes=count, process_id=index)
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", cpu_count())
    flags = os.environ.get("XLA_FLAGS", "")
    if IN_ORDER not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {IN_ORDER}=false".strip()


def use_compilation_cache(folder: str = "") -> None:
    """Keep compiled programs between runs, in `folder` or the user's cache folder."""
    default = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "bottlefit_jax", "xla")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", folder or default)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def create_mesh(*batch_sizes: int) -> Mesh:
    """One axis, "data", over all devices of all hosts.

    On a CPU, where devices are only cores, it takes as many as divide every batch.

    Raises:
        UserError: accelerators whose number does not divide a batch.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu" and jax.process_count() == 1:
        count = max(n for n in range(1, len(devices) + 1) if all(size % n == 0 for size in batch_sizes))
        devices = devices[:count]
    for size in batch_sizes:
        if size % len(devices):
            raise UserError(f"batch size {size} cannot be split over {len(devices)} devices: use a multiple")
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def describe(mesh: Mesh) -> str:
    """One phrase about the devices, which says so where there is no GPU."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return f"no GPU found by JAX: using the CPU as {mesh.size} device{'s' if mesh.size > 1 else ''}, one per core"
    return f"using {mesh.size} × {device.device_kind}"


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of state: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Host or device arrays, and random keys, the same on every host, onto every device of the mesh."""
    sharding = replicated(mesh)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=str(jax.random.key_impl(leaf)))
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.device_put(tree, sharding) if jax.process_count() == 1 else jax.tree.map(put, tree)


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This host's share of a batch, split over the mesh.

    Args:
        mesh: from `create_mesh`.
        batch: arrays of [B / hosts, ...].
    """
    sharding = split(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def to_host(tree: Any) -> Any:
    """Copy of a replicated tree's arrays in host memory, which later steps cannot overwrite."""
    return jax.tree.map(lambda leaf: np.array(leaf.addressable_data(0)) if isinstance(leaf, jax.Array) else leaf, tree)
