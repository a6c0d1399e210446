"""The progress bar that commands share."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TimeRemainingColumn


def bar_on_a_terminal(column: ProgressColumn) -> Progress:
    """Return a bar on standard error behind a column of its own, gone when it is done; silent without a terminal."""
    console = Console(stderr=True)
    return Progress(
        column, BarColumn(), TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    )
