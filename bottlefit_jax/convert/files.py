"""Files of weights, as PyTorch, safetensors and NumPy write them: the only place that imports torch.

The first bytes of a file decide its kind, its name does not. Nothing in it is ever run: PyTorch's own reader takes
tensors and plain values only, and anything else is refused by name.
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib
import io
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.convert import weight_sets
from bottlefit_jax.convert.about import KEY, About
from bottlefit_jax.convert.about import read as read_about
from bottlefit_jax.errors import UserError, write_error
from bottlefit_jax.files import atomic_file

SUFFIXES = (".pth", ".pt", ".safetensors")
# What training scripts keep beside their weights, besides tensors and plain values.
ALLOWED = (argparse.Namespace, collections.Counter)


@dataclasses.dataclass(frozen=True)
class File:
    """The content of a file.

    Attributes:
        kind: PyTorch, safetensors or npz.
        arrays: key -> array, float16 to float64 as stored, other floats as float32. A value among the weights that is
            no tensor is an array of objects without axes.
        beside: what else the checkpoint's dictionary has, such as `config`.
        about: the file's description of its network; None without one.
        weights: name of the set that was read; `weight_sets.TOP` where it is the file itself.
        sets: names of all sets in the file.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    beside: dict[str, Any] = dataclasses.field(default_factory=dict)
    about: About | None = None
    weights: str = weight_sets.TOP
    sets: tuple[str, ...] = (weight_sets.TOP,)


def read(path: Path, weights: str | None = None) -> File:
    """Read a file of weights.

    Args:
        path: the file.
        weights: name of the set to read, where there are several.

    Raises:
        UserError: the file is missing, damaged, of another kind, or wants to run something; its library is missing; or
            it has several sets of weights and none was chosen.
    """
    check_readable(path)
    with _errors_in_one_line(path):
        with path.open("rb") as file:
            start = file.read(9)
        if start[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                names, damaged = archive.namelist(), archive.testzip()  # torch.load looks at no checksum
            if damaged:
                raise UserError(f"{path} is damaged: the checksum of {damaged} in it is wrong")
            if names and all(name.endswith(".npy") for name in names):
                return _read_npz(path, weights)
            if any(name.endswith("/constants.pkl") for name in names):
                raise UserError(f"{path} is a TorchScript program: save the weights alone, {_HOW}")
            if not any(name.endswith("/data.pkl") for name in names):
                raise UserError(f"{path} is a zip file, but neither PyTorch's nor NumPy's")
            return _read_torch(path, weights)
        if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] < path.stat().st_size:
            return _read_safetensors(path, weights)
        if start[:1] == b"\x80":  # a pickle, as PyTorch wrote it before 1.6
            return _read_torch(path, weights)
    raise UserError(f"{path} is not a file of PyTorch (.pth, .pt), safetensors or NumPy (.npz)")


def check_readable(path: Path) -> None:
    """Raise UserError where there is no such file, or it cannot be opened."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; a file of weights is needed")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def write(path: Path, state_dict: Mapping[str, np.ndarray], about: str | None = None) -> None:
    """Write a state dict, whole or not at all.

    Args:
        path: .pth or .pt for PyTorch's own format, or .safetensors; replaced where it exists.
        state_dict: key -> array.
        about: the description of the network, as `about.write` returns it.

    Raises:
        UserError: the suffix is unknown, a library is missing, the disk is full, or the folder cannot be written.
    """
    check_suffix(path)
    if path.suffix == ".safetensors":
        metadata = None if about is None else {KEY: about}
        data = _library("safetensors.numpy", f"writing {path}").save(dict(state_dict), metadata)
    else:
        torch, buffer = _library("torch", f"writing {path}"), io.BytesIO()
        tensors = collections.OrderedDict((k, torch.from_numpy(np.array(v))) for k, v in state_dict.items())
        if about is not None:
            tensors._metadata = collections.OrderedDict({KEY: about})  # type: ignore[attr-defined]
        torch.save(tensors, buffer)
        data = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def check_suffix(path: Path) -> None:
    """Raise UserError for a suffix that `write` does not know."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: the file must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


_HOW = "torch.save(model.state_dict(), 'weights.pth')"


def _read_npz(path: Path, weights: str | None) -> File:
    with np.load(path, allow_pickle=False) as archive:
        return _file("npz", path, {key: archive[key] for key in archive.files}, weights, None)


def _read_safetensors(path: Path, weights: str | None) -> File:
    library = _library("safetensors", f"reading {path}")
    importlib.import_module("ml_dtypes")  # adds to NumPy the bfloat16 that safetensors needs
    with library.safe_open(path, framework="np") as file:
        arrays = {key: _to_numpy_type(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
        text = (file.metadata() or {}).get(KEY)
    return _file("safetensors", path, arrays, weights, text)


def _file(kind: str, path: Path, arrays: Mapping[str, np.ndarray], weights: str | None, text: str | None) -> File:
    """Return a file without dictionaries in it, which may still hold several networks side by side."""
    sets = weight_sets.find(arrays)
    if not sets:
        return File(kind, dict(arrays))
    chosen = weight_sets.choose(path, sets, weights)
    names = tuple(item.name for item in sets)
    return File(kind, dict(chosen.values or {}), about=read_about(path, text), weights=chosen.name, sets=names)


def _to_numpy_type(array: np.ndarray) -> np.ndarray:
    """Convert types that NumPy itself lacks (bfloat16, float8) to float32."""
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _read_torch(path: Path, weights: str | None) -> File:
    torch = _library("torch", f"reading {path}")
    with warnings.catch_warnings(), torch.serialization.safe_globals(list(ALLOWED)):
        warnings.simplefilter("ignore")
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of weights: save it by {_HOW}")
    sets = weight_sets.find(content)
    if not any(item.values is not None for item in sets):
        keys = ", ".join(map(str, list(content)[:10])) or "none"
        raise UserError(
            f"{path} holds no weights: no dictionary of named tensors is there or under its keys, {keys}. "
            f"Save one by {_HOW}"
        )
    chosen = weight_sets.choose(path, sets, weights)
    assert chosen.values is not None
    text = getattr(chosen.values, "_metadata", {}).get(KEY)
    return File(
        "PyTorch",
        {key: _from_tensor(torch, value) for key, value in chosen.values.items()},
        chosen.beside,
        read_about(path, text),
        chosen.name,
        tuple(item.name for item in sets),
    )


def _from_tensor(torch: Any, value: Any) -> np.ndarray:
    """Return a tensor as an array, and anything else as an object, which the list of problems then names."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu":
        value = value.detach()
        if value.is_quantized:
            value = value.dequantize()
        if value.is_floating_point() and value.dtype not in (torch.float16, torch.float32, torch.float64):
            value = value.float()
        return value.resolve_conj().resolve_neg().numpy()
    holder = np.empty((), object)
    holder[()] = value
    return holder


@contextlib.contextmanager
def _errors_in_one_line(path: Path) -> Iterator[None]:
    """Turn any error of a library about a damaged or hostile file into one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is damaged or cut short: {str(error)[:200]}") from error
    except Exception as error:  # libraries raise nearly everything here: KeyError, EOFError, RuntimeError, ...
        message = str(error)
        if match := re.search(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) (\S+)", message):
            raise UserError(
                f"{path} holds more than weights: it asks for {match[1]}, which is not run here; "
                f"where it was made, save the state dict alone: {_HOW}"
            ) from error
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        reason = next((line for line in lines if not line.startswith("Weights only load failed")), "")
        raise UserError(f"{path} is damaged, or no file of weights: {reason[:200] or type(error).__name__}") from error


def _library(name: str, doing: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        needed = {"torch": "PyTorch"}.get(name, name.partition(".")[0])
        raise UserError(f"{doing} needs {needed}: pip install 'bottlefit-jax[convert]'") from error
