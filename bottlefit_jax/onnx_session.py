"""ONNX Runtime sessions, for heads on a device and tails on a server: which hardware they compute on.

ONNX Runtime calls that a provider. A package has the providers it was built with; whether their libraries and a GPU are
there, only a session shows.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bottlefit_jax.errors import UserError, first_line
from bottlefit_jax.paths import cache_folder

logger = logging.getLogger("bottlefit_jax.onnx_session")

__all__ = ["PROVIDERS", "check_providers", "open_session", "providers_of"]

# our name of a provider -> ONNX Runtime's, the fastest first
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
ENGINES = "onnxruntime"  # folder of the cache: TensorRT builds an engine at the first run, which takes minutes


def open_session(path: Path, *, threads: int, providers: Sequence[str] = ()) -> Any:
    """Load a graph. What the first of the providers cannot compute, the next one does, and at last the CPU.

    Where no provider is named and an installed GPU's does not work here, a warning says so.

    Args:
        path: of the .onnx file.
        threads: that run one call on a CPU.
        providers: keys of PROVIDERS, in the order of preference; none: all that are installed, the fastest first.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        UserError: ONNX Runtime or a provider that was named is not installed or does not work here, or the file cannot
            be loaded.
    """
    try:
        import onnxruntime
    except Exception as error:  # where a system library is missing, or NumPy is not the one it was built for
        raise UserError(f"ONNX Runtime cannot be imported: {first_line(error)}; pip install onnxruntime") from error
    installed = onnxruntime.get_available_providers()
    chosen = _chosen(providers, installed)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads that spin between two layers take the cores from gRPC and from other tails; under load that cost 50 %
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised; onnxruntime would print them as well
    with _quiet(onnxruntime, not providers):
        if PROVIDERS["cuda"] in chosen and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA's libraries where pip has put them
        session = _opened(onnxruntime, path, options, chosen)
    works = providers_of(session)
    if missing := [name for name in providers if name not in works]:
        raise UserError(
            f"ONNX Runtime cannot use {missing[0]} on this machine: its libraries or its GPU are missing; "
            f"without it there is {', '.join(works)}"
        )
    if PROVIDERS["cuda"] in chosen and works == ("cpu",):
        logger.warning(
            "warning: ONNX Runtime has the provider cuda and cannot use it here: the CPU computes; "
            "--providers cuda shows what is missing"
        )
    return session


def providers_of(session: Any) -> tuple[str, ...]:
    """Return the keys of PROVIDERS that a session computes with, the preferred one first."""
    names = {theirs: ours for ours, theirs in PROVIDERS.items()}
    return tuple(names[each] for each in session.get_providers() if each in names)


def check_providers(providers: Sequence[str], name: str) -> None:
    """Check the names of providers.

    Args:
        providers: keys of PROVIDERS.
        name: of the option that has them, for the message.

    Raises:
        UserError: one is unknown, or named twice.
    """
    unknown = [each for each in providers if each not in PROVIDERS]
    if unknown or len(set(providers)) < len(providers):
        wrong = repr(unknown[0]) if unknown else f"{','.join(providers)}, one of them twice"
        raise UserError(f"{name} is {wrong}; give some of {', '.join(PROVIDERS)}, in the order of preference")


def _chosen(providers: Sequence[str], installed: Sequence[str]) -> list[str]:
    """Return ONNX Runtime's names of the providers to use, the CPU at the end."""
    if missing := [name for name in providers if PROVIDERS[name] not in installed]:
        known = ", ".join(ours for ours, theirs in PROVIDERS.items() if theirs in installed)
        raise UserError(f"this ONNX Runtime has no provider {missing[0]}, only {known}: onnxruntime-gpu has the others")
    names = [PROVIDERS[name] for name in providers] or [name for name in PROVIDERS.values() if name in installed]
    return [*names, *([] if PROVIDERS["cpu"] in names else [PROVIDERS["cpu"]])]


@contextlib.contextmanager
def _quiet(runtime: Any, silent: bool) -> Iterator[None]:
    """Keep what ONNX Runtime prints on standard output, where results go; `silent`: also what its own log says."""
    if silent:
        runtime.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if silent:
            runtime.set_default_logger_severity(2)  # its default; it does not say what was set


def _opened(runtime: Any, path: Path, options: Any, providers: Sequence[str]) -> Any:
    """Return a session with as many of the providers as it can be opened with."""
    for first in range(len(providers)):
        given = [_with_options(name) for name in providers[first:]]
        try:
            return runtime.InferenceSession(str(path), options, providers=given, enable_fallback=0)
        except Exception as error:  # onnxruntime's errors have no common class below Exception
            if first == len(providers) - 1:
                raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error
    raise AssertionError("the CPU is always among them")


def _with_options(provider: str) -> Any:
    if provider != PROVIDERS["tensorrt"]:
        return provider
    folder = cache_folder() / ENGINES
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # where nothing can be kept, each run builds its engines
        return provider
    return provider, {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
