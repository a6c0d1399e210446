"""Commands as typer has them, in panels by what they serve, whose options lose no value."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from dr3_ray.errors import UserError
from dr3_ray.process.terminal import said_if_silent

Function = TypeVar("Function", bound=Callable[..., Any])
PANELS = DATA, TRAIN, UNDERSTAND, USE, PREPARE = "Data", "Train", "Understand", "Use", "Prepare"


class Commands(typer.Typer):
    """A command line in which an option of one value is given once."""

    def command(self, *names: Any, **settings: Any) -> Callable[[Function], Function]:
        """Register a command."""
        return super().command(*names, **{"cls": _Once, **settings})


class _Once(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of a command line.

        Raises:
            BadParameter: an option is given twice: its last value alone would count.
        """
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        option: Any
        for option in given:
            repeated = given.count(option) > 1 and not getattr(option, "multiple", True)
            if repeated and (option.secondary_opts or not getattr(option, "is_flag", False)):
                raise typer.BadParameter("it is given twice: leave out one of the two", ctx=ctx, param=option)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. What is slow before its first word is the import of libraries."""
        with said_if_silent("loading libraries"):
            return super().invoke(ctx)


class InPanels(TyperGroup):
    """Commands in the order in which they are needed; each panel of the help stands where its first one does."""

    def list_commands(self, context: Any) -> list[str]:
        """Return the names in that order."""
        return sorted(super().list_commands(context), key=self._place)

    def _place(self, name: str) -> int:
        panel = getattr(self.commands[name], "rich_help_panel", None)
        return PANELS.index(panel) if panel in PANELS else len(PANELS)


def refuse_idle(context: typer.Context, options: Iterable[str], why: str) -> None:
    """Refuse options that were typed and would change nothing.

    Raises:
        UserError: one of them was; says `why`.
    """
    typed = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in options:
        if str(context.get_parameter_source(name)).endswith("COMMANDLINE"):
            raise UserError(f"{typed[name]} changes nothing {why}: leave it out")
