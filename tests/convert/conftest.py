"""Small networks, and the check of a refusal."""

import os

import pytest

from bottlefit_jax.convert.__main__ import main
from tests.convert.state_dicts import state_dict


@pytest.fixture
def refused(capsys):
    """Checks that arguments are refused with one line, and that nothing was written."""

    def check(output, match, *args):
        before = sorted(os.listdir(output.parent))
        assert main([str(arg) for arg in args]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert match in err
        assert sorted(os.listdir(output.parent)) == before

    return check


@pytest.fixture(scope="session")
def teacher():
    return state_dict()


@pytest.fixture(scope="session")
def student():
    return state_dict(bottleneck={"channels": 3}, seed=1)
