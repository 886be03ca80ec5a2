"""Reads a config from its file and applies the command line's changes; every error is one line that says where."""

import ast
import importlib.util
import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import PathError, local_path
from bottlefit_jax.recipe import Config, base_config

__all__ = ["config_list", "override", "read_config"]

PACKAGE = Path(__file__).parents[1]
CONFIGS = (PACKAGE / "configs", PACKAGE.parent / "configs")  # of a wheel, of a checkout
MAX_MESSAGE = 300  # characters of an error that a config file raises
TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "values with commas between them, as 1,2",
    ConfigDict: "a dictionary, as {'width': 16}",
}
OPTIONS = "config.teacher.options"  # its keys depend on the model


def read_config(reference: str) -> Config:
    """Run the `get_config` of a file.

    Args:
        reference: FILE or FILE:ARGUMENT, where FILE is a path or the name of one of our configs, such as `digits`.

    Returns:
        The config, which has the keys of `base_config()`.

    Raises:
        UserError: there is no such file, it fails, or it does not return such a config.
    """
    name, colon, argument = reference.partition(":")
    try:
        path = local_path(reference if "://" in reference else name)
    except PathError as error:
        raise UserError(f"--config={reference}: {error}") from None
    if not path.is_file():  # a file goes before a name
        problem = f"{name!r} is a folder, not a config file" if path.is_dir() else f"no config file {name!r}"
        configs = _our_configs()
        if name not in configs:
            raise UserError(f"{problem}; give a path, or the name of one of ours: {', '.join(configs)}")
        path = configs[name]
    make = _in_file(path, lambda: _get_config(path))
    parameters = [argument] if colon else []
    try:
        inspect.signature(make).bind(*parameters)
    except TypeError:
        if colon:
            raise UserError(f"{name} takes no argument, and {argument!r} was given") from None
        raise UserError(f"{name} needs an argument: --config={name}:ARGUMENT") from None
    config = _in_file(path, lambda: make(*parameters))
    if not isinstance(config, ConfigDict):
        raise UserError(f"{name}: get_config() returned {config!r}; it must return the config of base_config()")
    _check_keys(config, base_config(), name)
    return config


def config_list() -> str:
    """Return a line for each of our configs: its name and the beginning of its docstring."""
    configs = _our_configs()
    width = max(map(len, configs), default=0)
    docstrings = {name: ast.get_docstring(ast.parse(path.read_bytes())) or "" for name, path in configs.items()}
    return "\n".join(f"  {name:<{width}}  {re.split('[.:;]', text)[0]}" for name, text in docstrings.items())


def override(config: Config, name: str, arguments: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Apply `--NAME.KEY=VALUE` to the config, lock it, and parse the command's own flags.

    Args:
        config: changed in place.
        name: of the flag, "config".
        arguments: the command line without the program.
        values: with the command's own flags defined; they get their values.

    Returns:
        The arguments that are neither a flag nor the value of one.

    Raises:
        UserError: an unknown key or flag, or a value of the wrong type.
    """
    argv = ["", *arguments]
    for argument in argv:
        if match := re.fullmatch(rf"--?(?:no)?{name}\.([^=]*)(?:=.*)?", argument, re.DOTALL):
            _check_key(config, name, match[1])
    try:
        config_flags.DEFINE_config_dict(name, config, flag_values=values, sys_argv=argv)
        return list(values(argv))[1:]
    except flags.IllegalFlagValueError as error:
        match = re.match(rf"flag --{name}\.([^=]+)=(.*?): ", str(error), re.DOTALL)
        if not match:
            raise UserError(str(error)) from None
        kind = config_path.get_type(match[1], config)
        expected = TYPE_NAMES.get(kind, "a text")
        raise UserError(f"--{name}.{match[1]}={match[2]}: it must be {expected}") from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(str(error)) from None


def _our_configs() -> dict[str, Path]:
    """Return the files of the configs of this package by their names."""
    folder = next((folder for folder in CONFIGS if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.py"))}


def _get_config(path: Path) -> Callable[..., Any]:
    """Return the function `get_config` of a config file."""
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; the config digits is an example of one")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(make := getattr(module, "get_config", None)):
        raise UserError(f"{path} has no function get_config(); the config digits has one")
    return make


def _in_file(path: Path, call: Callable[[], Any]) -> Any:
    """Call `call`, which runs a user's config file; any error becomes a UserError with its file, line and message."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # a config file may raise anything
        raise UserError(f"{_where(path, error)}: {_message(error)}") from None


def _where(path: Path, error: Exception) -> str:
    """Return the file and the line that an error is from: a line of the config file, if it is on the stack."""
    file = str(path.absolute())  # as Python names it in a traceback
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path if error.filename == file else error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{path}, line {lines[-1]}" if lines else f"{path}"


def _message(error: Exception) -> str:
    """Return the text of an error on one line, after the name of its class."""
    if isinstance(error, SyntaxError):
        return error.msg
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
    name = type(error).__name__
    if isinstance(error, AttributeError) and error.args and isinstance(error.args[0], KeyError):
        error = error.args[0]  # a ConfigDict without that key: "'datset'\nDid you mean ..."
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = re.sub(r"Other fields present: .*?(?=Did you mean|$)", "", text, flags=re.DOTALL)  # the whole config
    text = re.sub(r"^('\w+')(?=\n|$)", r"the config has no key \1.", text)
    return f"{name}: {' '.join(text.split())[:MAX_MESSAGE]}"


def _check_keys(config: Config, known: Config, name: str, prefix: str = "config") -> None:
    """Raise UserError unless the config has the same keys as `known`."""
    for key in sorted({*config.keys()} ^ {*known.keys()}):
        keys = ", ".join(sorted(known.keys()))
        problem = f"unknown config key {prefix}.{key}" if key in config else f"the config has no {prefix}.{key}"
        raise UserError(f"{name}: {problem}; {prefix} of base_config() has {keys}")
    for key in known:
        path = f"{prefix}.{key}"
        if path != OPTIONS and isinstance(known[key], ConfigDict):
            if not isinstance(config[key], ConfigDict):
                raise UserError(f"{name}: {path} is {config[key]!r}; it must be a dictionary, as in base_config()")
            _check_keys(config[key], known[key], name, path)


def _check_key(config: Config, name: str, path: str) -> None:
    """Raise UserError where the config has no value at `path`."""
    value, prefix = config, name
    for key in path.split("."):
        if not isinstance(value, ConfigDict):
            raise UserError(f"unknown config key: {name}.{path}: {prefix} is {value!r}, without keys of its own")
        if key not in value:
            keys = ", ".join(sorted(value.keys())) or "none"
            raise UserError(f"unknown config key: {name}.{path}; {prefix} has {keys}")
        value, prefix = value[key], f"{prefix}.{key}"
