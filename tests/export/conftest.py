import pytest

from tests.export.finished_run import patch_workdir, workdir

__all__ = ["patch_workdir", "workdir"]  # fixtures


@pytest.fixture(scope="session", autouse=True)
def few_images_for_tables():
    """Tables of 100 images are made in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottlefit_jax.evaluation.rates.MOST_IMAGES", 100)
        yield
