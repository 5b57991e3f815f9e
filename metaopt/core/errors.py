"""The exception for what a person can mend."""


class UserError(ValueError):
    """A fault in what was asked for: its message says what was received, what is valid, what to do.

    The command line shows it as one line and exits with code 2; any other exception is a bug and
    shows its traceback.
    """


class OwnFault(UserError):
    """A fault that one process of several meets alone, such as a full disk: the others wait."""
