"""The one error that is meant for the person at the keyboard.

`UserError` says, in one line, what was given and what would be right. Commands print it without a
traceback and exit with code 2. Any other exception that leaves a command is a bug of ours.
"""

import errno


class UserError(ValueError):
    """Something the user gave cannot be used: a config value, a file, a folder, a flag."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, ours or a library's that only quotes the system's words, is about a full disk or quota."""
    by_number = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return by_number or "No space left" in str(error) or "Disk quota exceeded" in str(error)
