"""The command line. Commands import what is heavy when they run, so that `--help` is quick."""

import sys

import typer

from dr3_ray.data.cli import app as data
from dr3_ray.errors import UserError

app = typer.Typer(name="dr3-ray", help="Offline reinforcement learning sweeps with DR3 regularization.")
app.add_typer(data, name="data")

# Click's UsageError; where it lives depends on the version of typer.
_UsageError = typer.BadParameter.__mro__[1]


@app.callback()
def _root() -> None:
    # Keeps the names of the commands while there is only one.
    pass


def main() -> None:
    """Run the command line. A user's mistake is one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False, prog_name="dr3-ray")
    except UserError as error:
        _fail(str(error))
    except _UsageError as error:
        _fail(f"{error.format_message()} (see dr3-ray --help)")  # type: ignore[attr-defined]
    except typer.Abort:
        sys.exit(130)
    else:
        sys.exit(code)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
