"""The one exception that means: the person who called can mend this."""


class UserError(Exception):
    """Bad input or a bad environment; the message is one sentence a person can act on.

    It says what was given, what is allowed and what to do. The command line prints it without a
    traceback and exits with code 2.
    """
