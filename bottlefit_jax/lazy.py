"""Names that a room exports, imported when somebody asks for them.

A command looks at its flags before it imports what takes seconds, and says in one line which package is missing; so
`import bottlefit_jax.edge` may not import gRPC.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(room: str, files: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a room's `__init__`.

    Args:
        room: `__name__` of the package.
        files: name of a file in it -> the names that it defines and the room exports.
    """
    places = {name: file for file, names in files.items() for name in names}

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{room}.{places[name]}"), name)

    return load
