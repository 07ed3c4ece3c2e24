"""Exceptions that the command line turns into one sentence."""


class UserError(Exception):
    """Bad input or a bad environment; the message is one sentence a person can act on.

    It says what was given, what is allowed and what to do. The command line prints it without a
    traceback and exits with code 2.
    """


class SweepFailed(Exception):
    """Trials keep failing: something is wrong that another recipe will not mend. Exit code 1."""
