"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """What is wrong and what to do about it, in one line. The command line prints it and exits with 2."""
