"""The one exception that stands for a user's mistake, and what it quotes of others."""


class UserError(ValueError):
    """What is wrong and what to do about it, in one line. The command line prints it and exits with 2."""


def first_line(error: BaseException) -> str:
    """What an error has to say, without its details."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
