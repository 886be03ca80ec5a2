"""What a person may give as a path: `~` is the home folder, addresses of other places are refused."""

from pathlib import Path

import pytest

from bottlefit_jax.cli.command import Parser
from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import local_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("~/runs/x", "/home/ann/runs/x"), ("~", "/home/ann"), ("runs/~x", "runs/~x"), ("a:b//c", "a:b/c"), ("/d", "/d")],
)
def test_the_home_folder_is_written_out(monkeypatch, text, expected):
    monkeypatch.setenv("HOME", "/home/ann")
    assert local_path(text) == Path(expected)


@pytest.mark.parametrize("text", ["gs://bucket/run", "s3://b", "http://host/x", "abfs://b/x", "file:///tmp/x"])
def test_an_address_of_another_place_is_refused_by_its_name(text):
    with pytest.raises(UserError, match=f"'{text}' is not on this machine; only paths such as /data/run work"):
        local_path(text)


@pytest.mark.parametrize(
    ("text", "message"), [("", "the path is empty"), ("~nobody-here/x", "home folder"), ("a\0b", "zero byte")]
)
def test_what_is_no_path_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        local_path(text)


def test_every_flag_that_is_a_path_is_read_so(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    parser = Parser("some.command", None)
    parser.add_argument("--output", type=Path)
    assert parser.parse_args(["--output", "~/bundle"]).output == Path("/home/ann/bundle")
    with pytest.raises(UserError, match=r"argument --output: 's3://b/x' is not on this machine"):
        parser.parse_args(["--output", "s3://b/x"])
