"""The errors of this package.

    BottleFitError        every error below; a command prints it as one line, without a traceback
    ├── UserError         a value that is invalid: a flag, a config key, a file, a folder; exit code 2
    ├── Unavailable       a deadline passed, or nobody answered; the next request may get an answer
    ├── ProtocolError     a peer answered, and the answer is an error or not usable
    └── ParityError       exported files compute something else than the network that they were made from

Messages say in one line what was given and what would be valid. Any other exception that leaves a command is a bug.
"""


class BottleFitError(Exception):
    """An error that is meant for a person: its text is one line."""


class UserError(BottleFitError, ValueError):
    """A value that is invalid: a config value, a file, a folder, a flag."""


class Unavailable(BottleFitError):
    """Nothing answered within the deadline; the next request may get an answer."""


class ProtocolError(BottleFitError):
    """A peer's answer is an error or not usable; the next request may get another."""


class ParityError(BottleFitError):
    """Exported files compute something else than the network that they were made from."""
