"""The errors a user can meet, by exit code.

    CompressError        2   the user's input: what was wrong, what was found, how to fix it
    └── CheckFailed      3   everything ran, but a requirement, parity or validity check failed

Any other exception is our bug (exit 1, with its traceback); an interrupt exits 130.
"""


class CompressError(Exception):
    """The user's input is at fault. The message is one line: what, got, fix."""

    exit_code = 2


class CheckFailed(CompressError):
    """The work ran to its end and a check on its result failed."""

    exit_code = 3
