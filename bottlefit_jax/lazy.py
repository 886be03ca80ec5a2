"""Names that a room exports, imported at their first use.

A command reads its flags before it imports modules that take seconds, and says in one line which package is missing.
So `import bottlefit_jax.edge` must not import gRPC.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["exports"]


def exports(room: str, files: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a room's `__init__`.

    Args:
        room: `__name__` of the package.
        files: for each file of the package, without its suffix, the names that it defines and the room exports.

    Returns:
        A function from a name to the object, which raises AttributeError for any other name.
    """
    files_by_name = {name: file for file, names in files.items() for name in names}

    def load(name: str) -> Any:
        if name not in files_by_name:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{room}.{files_by_name[name]}"), name)

    return load
