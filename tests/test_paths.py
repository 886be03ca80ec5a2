"""A path in a flag or a config: `~` is the home folder, a URL is invalid, and any path can be shown."""

import os
from pathlib import Path

import pytest

from bottlefit_jax.cli.command import Parser
from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import cache_folder, local_path, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [("~/runs/x", "/home/ann/runs/x"), ("~", "/home/ann"), ("runs/~x", "runs/~x"), ("a:b//c", "a:b/c"), ("/d", "/d")],
)
def test_the_home_folder_is_expanded(monkeypatch, text, expected):
    monkeypatch.setenv("HOME", "/home/ann")
    assert local_path(text) == Path(expected)


@pytest.mark.parametrize("text", ["gs://bucket/run", "s3://b", "http://host/x", "abfs://b/x", "file:///tmp/x"])
def test_a_url_is_invalid_and_quoted(text):
    with pytest.raises(UserError, match=f"'{text}' is not on this machine; only paths such as /data/run work"):
        local_path(text)


@pytest.mark.parametrize(
    ("text", "message"), [("", "the path is empty"), ("~no-such-user/x", "home folder"), ("a\0b", "zero byte")]
)
def test_an_invalid_path_is_an_error(text, message):
    with pytest.raises(UserError, match=message):
        local_path(text)


def test_every_flag_of_type_path_is_read_so(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    parser = Parser("some.command", None)
    parser.add_argument("--output", type=Path)
    assert parser.parse_args(["--output", "~/bundle"]).output == Path("/home/ann/bundle")
    with pytest.raises(UserError, match=r"argument --output: 's3://b/x' is not on this machine"):
        parser.parse_args(["--output", "s3://b/x"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [("/var/cache/x", "/var/cache/x"), ("", "/home/ann/.cache"), ("x", "/home/ann/.cache")],
)
def test_what_is_kept_lies_in_the_cache_of_the_service_or_of_the_user(monkeypatch, given, expected):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert cache_folder() == Path(expected, "bottlefit-jax")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/é.jpg", "a/é.jpg"), (Path("b.jpg"), "b.jpg"), (b"\xe9.jpg", r"\xe9.jpg"), (os.fsdecode(b"\xff"), r"\xff")],
)
def test_a_path_is_shown_as_text_that_utf8_can_encode(path, expected):
    assert printable(path) == expected
    assert printable(path).encode() == expected.encode()
