"""A token file holds one word that a header can carry, and only this machine counts as the loopback."""

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.authorization import MAX_TOKEN, is_loopback, read_token


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b" \ts3cret\r\n"])
def test_the_token_is_read_without_the_white_space_around_it(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    assert read_token(tmp_path / "token") == "s3cret"


def test_the_longest_token_is_read(tmp_path):
    (tmp_path / "token").write_bytes(b"x" * MAX_TOKEN)
    assert len(read_token(tmp_path / "token")) == MAX_TOKEN


@pytest.mark.parametrize(
    "content", [b"", b"  \n", b"two words", b"two\nlines", "ключ".encode(), b"\xff", b"a\0b", b"x" * (MAX_TOKEN + 1)]
)
def test_a_file_without_one_visible_word_is_invalid(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_token(path)
    assert str(caught.value) == f"--token-file {path} must hold one word of 1 to 4,096 visible ASCII characters"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path):
    with pytest.raises(UserError, match=r"--token-file .*/none cannot be read: No such file or directory"):
        read_token(tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        read_token(tmp_path)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("[::1]", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("localhost.example.org", False),
    ],
)
def test_only_localhost_and_loopback_addresses_are_the_loopback(host, loopback):
    assert is_loopback(host) == loopback
