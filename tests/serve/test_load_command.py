"""The command that loads and unloads models of a running server."""

import pytest

from bottlefit_jax.serve.load import main
from tests.serve import example


@pytest.fixture
def folder(tmp_path):
    example.write(tmp_path / "1", version=1)
    return tmp_path


def test_a_bundle_that_is_put_there_later_is_loaded(folder, capsys):
    with example.serving(parents=[folder], repository_port=0) as running:
        server = f"127.0.0.1:{running.repository_port}"
        example.write(folder / "2", version=2)
        example.write(folder / "new", name="new")
        assert main(["--server", server]) == 0
        assert capsys.readouterr().out.splitlines() == ["digits:1 READY", "digits:2 UNAVAILABLE", "new:3 UNAVAILABLE"]
        assert main(["--server", server, "digits", "new"]) == 0
        assert capsys.readouterr().out.splitlines() == ["digits:1 READY", "digits:2 READY", "new:3 READY"]
        assert main(["--server", server, "--unload", "digits"]) == 0
        assert capsys.readouterr().out.splitlines()[:2] == ["digits:1 UNAVAILABLE", "digits:2 UNAVAILABLE"]


def test_with_the_servers_token(folder, tmp_path_factory, capsys):
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("s3cret")
    with example.serving(parents=[folder], repository_port=0, token_file=token) as running:
        server = f"127.0.0.1:{running.repository_port}"
        assert main(["--server", server, "digits"]) == 2
        assert "UNAUTHENTICATED" in capsys.readouterr().err
        assert main(["--server", server, "--token-file", str(token), "digits"]) == 0


def test_mistakes_are_one_line(folder, capsys):
    with example.serving(parents=[folder], repository_port=0) as running:
        wrong_port, right_port = f"127.0.0.1:{running.port}", f"127.0.0.1:{running.repository_port}"
        for flags, message in (
            (["--server", wrong_port, "digits"], "PERMISSION_DENIED: this port does not load or unload models"),
            (["--server", right_port, "nope"], "NOT_FOUND: no bundle has the name 'nope'"),
            (["--server", right_port, "--unload"], "--unload needs the names of the models"),
            (["digits"], "--server"),
        ):
            assert main(flags) == 2
            error = capsys.readouterr().err
            assert message in error
            assert error.startswith("error: ")
            assert error.count("\n") == 1
    assert main(["--server", right_port, "digits"]) == 2
    assert "UNAVAILABLE" in capsys.readouterr().err
