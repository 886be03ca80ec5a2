"""What pyproject.toml cannot say: the configs of a wheel, and the README as a package index shows it.

A wheel holds the folder `configs` as `bottlefit_jax/configs`. A package-dir mapping would do so too, but only beside a
list of all packages, which every new room would have to join.
"""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies `configs/*.py` into the package that is built; an editable install reads them where they are."""

    def run(self) -> None:
        """Build the package, then add the configs."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "bottlefit_jax" / "configs"
        self.mkpath(str(target))
        for path in sorted(Path("configs").glob("*.py")):
            self.copy_file(str(path), str(target / path.name))


def long_description() -> str:
    """Return the README with text in place of relative links and images, which lead nowhere on an index."""
    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(
        r"(!?)\[([^]]*)\]\((?!https?://)[^)]*\)", lambda match: f"*{match[2]}*" if match[1] else match[2], text
    )


setup(
    cmdclass={"build_py": BuildWithConfigs},
    long_description=long_description(),
    long_description_content_type="text/markdown",
)
