"""Exceptions that the command line turns into one sentence, and what others come from."""

import errno
from collections.abc import Iterator


class UserError(Exception):
    """Bad input or a bad environment; the message is one sentence a person can act on.

    It says what was given, what is allowed and what to do. The command line prints it without a
    traceback and exits with code 2.
    """


class SweepFailed(Exception):
    """Trials keep failing: something is wrong that another recipe will not mend. Exit code 1."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def says_no_room(error: BaseException) -> bool:
    """Whether an error comes from a disk that is full."""
    return any(
        (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT))
        or "database or disk is full" in str(cause)
        for cause in causes(error)
    )
