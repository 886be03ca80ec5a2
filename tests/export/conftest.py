from tests.export.finished_run import patch_workdir, workdir

__all__ = ["patch_workdir", "workdir"]  # fixtures
