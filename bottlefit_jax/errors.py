"""The one error that is meant for the person at the keyboard.

`UserError` says, in one line, what was given and what would be right. Commands print it without a
traceback and exit with code 2. Any other exception that leaves a command is a bug of ours.
"""


class UserError(ValueError):
    """Something the user gave cannot be used: a config value, a file, a folder, a flag."""
