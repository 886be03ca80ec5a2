"""The pages that are generated, and the test vectors of payload.md."""

from collections.abc import Callable
from pathlib import Path

from tools.reference import vectors
from tools.reference.api import api
from tools.reference.commands import commands
from tools.reference.configuration import configuration
from tools.reference.manifest import manifest

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "api.md": api,
    "commands.md": commands,
    "configuration.md": configuration,
    "manifest.md": manifest,
}
FILES = {**PAGES, f"vectors/{vectors.FILE}": vectors.text}


def write() -> list[Path]:
    """Write all files; return those that changed."""
    changed = []
    for name, make in FILES.items():
        path, text = FOLDER / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed
