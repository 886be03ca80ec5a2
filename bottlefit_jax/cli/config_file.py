"""A config from its file, and the command line's changes to it; every mistake is one line that says where."""

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

EXAMPLE = "configs/digits.py is one"
LONGEST = 300  # characters of an error of somebody's config file
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "values with commas between them, as 1,2",
    ConfigDict: "a dictionary, as {'width': 16}",
}
OPTIONS = "config.teacher.options"  # what may be in it depends on the model


def read_config(given: str) -> Config:
    """Run the `get_config` of a file.

    Args:
        given: FILE.py, or FILE.py:ARGUMENT.

    Raises:
        UserError: there is no such file, it fails, or it returns something else than a config.
    """
    name, colon, argument = given.partition(":")
    try:
        path = local_path(given if "://" in given else name)
    except PathError as error:
        raise UserError(f"--config={given}: {error}") from None
    if not path.is_file():
        what = f"{name!r} is a folder, not a config file" if path.is_dir() else f"no config file {name!r}"
        raise UserError(f"{what}; {EXAMPLE}")
    make = _in_file(path, lambda: _get_config(path))
    parameters = [argument] if colon else []
    try:
        inspect.signature(make).bind(*parameters)
    except TypeError:
        wrong = f"takes no argument, and {argument!r} was given" if colon else f"needs an argument: --config={name}:ARG"
        raise UserError(f"{name} {wrong}") from None
    config = _in_file(path, lambda: make(*parameters))
    if not isinstance(config, ConfigDict):
        raise UserError(f"{name}: get_config() returned {config!r}; it must return the config of base_config()")
    _check_keys(config, base_config(), name)
    return config


def override(config: Config, name: str, arguments: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Apply `--NAME.KEY=VALUE` to the config, lock it, and parse the command's own flags.

    Args:
        config: changed in place.
        name: of the flag, "config".
        arguments: the command line without the program.
        values: with the command's own flags defined; they get their values.

    Returns:
        What is left: neither a flag nor a value of one.

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
        raise UserError(f"--{name}.{match[1]}={match[2]}: it must be {WORDS.get(kind, 'a text')}") from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(str(error)) from None


def _get_config(path: Path) -> Callable[..., Any]:
    """The function of a config file."""
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; {EXAMPLE}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(make := getattr(module, "get_config", None)):
        raise UserError(f"{path} has no function get_config(); configs/digits.py shows one")
    return make


def _in_file(path: Path, act: Callable[[], Any]) -> Any:
    """Call `act`, which runs somebody's config file; an error of it becomes one that names the line."""
    try:
        return act()
    except UserError:
        raise
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}" if error.lineno else f"{path}"
        raise UserError(f"{where}: {error.msg}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}: {error.filename or ''}".rstrip(": ")) from None
    except Exception as error:  # whatever the file does
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else f"{path}"
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        text = " ".join(text.split(" Other fields present")[0].split()).strip("'\"")[:LONGEST]
        raise UserError(f"{where}: {type(error).__name__}: {text}") from None


def _check_keys(config: Config, known: Config, name: str, prefix: str = "config") -> None:
    """Raise UserError for a key of the config that `known` has not, or lacks."""
    for key in sorted({*config.keys()} ^ {*known.keys()}):
        keys = ", ".join(sorted(known.keys()))
        what = f"unknown config key {prefix}.{key}" if key in config else f"the config has no {prefix}.{key}"
        raise UserError(f"{name}: {what}; {prefix} of base_config() has {keys}")
    for key in known:
        path = f"{prefix}.{key}"
        if path != OPTIONS and isinstance(known[key], ConfigDict):
            if not isinstance(config[key], ConfigDict):
                raise UserError(f"{name}: {path} is {config[key]!r}; it must be a dictionary, as in base_config()")
            _check_keys(config[key], known[key], name, path)


def _check_key(config: Config, name: str, path: str) -> None:
    """Raise UserError where the config has no value at `path`."""
    part, at = config, name
    for key in path.split("."):
        if not isinstance(part, ConfigDict):
            raise UserError(f"unknown config key: {name}.{path}: {at} is {part!r}, without keys of its own")
        if key not in part:
            raise UserError(f"unknown config key: {name}.{path}; {at} has {', '.join(sorted(part.keys())) or 'none'}")
        part, at = part[key], f"{at}.{key}"
