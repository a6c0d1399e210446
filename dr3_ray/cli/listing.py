"""`dr3-ray algorithms` and `dr3-ray options`: what there is to train, and what can be set."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dr3_ray.cli.document import AsJson, print_document

if TYPE_CHECKING:
    from dataclasses import Field

    from dr3_ray.training.documentation import Method

TITLES: "dict[Method, str]" = {"training": "the algorithm", "regularization": "DR3 and the critic's other regularisers"}


def algorithms(as_json: AsJson = False) -> None:
    """List the algorithms, and the actions that each of them takes.

    Example: dr3-ray algorithms

    Example: dr3-ray algorithms --json
    """
    from rich.console import Console
    from rich.table import Table

    from dr3_ray.algorithms.registry import ALGORITHMS, TITLES

    if as_json:
        rows = [{"name": name, "title": TITLES[name], "actions": list(forms)} for name, forms in ALGORITHMS.items()]
        print_document(rows)
        return
    table = Table("algorithm", "actions", "what it is")
    for name, forms in ALGORITHMS.items():
        table.add_row(name, ", ".join(forms), TITLES[name])
    Console().print(table)


def options(
    algorithm: Annotated[str, typer.Argument(help="As in DR3-CQL; `dr3-ray algorithms` lists them.")],
    as_json: AsJson = False,
) -> None:
    """List an algorithm's options with default, range and meaning, as `--set` and `--axis` take them.

    Example: dr3-ray options DR3-CQL

    Example: dr3-ray options DR3-IQL --json
    """
    from textwrap import fill

    from rich.console import Console

    from dr3_ray.training.documentation import describe, options_of

    kinds = {title: options_of(algorithm, method) for method, title in TITLES.items()}
    if as_json:
        documents = {
            title: {kind: list(map(_document, definition)) for kind, definition in kinds[title].items()}
            for title in kinds
        }
        print_document(documents)
        return
    console = Console(markup=False, highlight=False)
    for title, by_kind in kinds.items():
        if lines := describe(by_kind):
            console.print(f"Options of {title}", style="bold")
            for line in lines:
                console.print(fill(line, console.width - 1, initial_indent="  ", subsequent_indent="      "))


def _document(option: "Field[Any]") -> dict[str, Any]:
    from dr3_ray.training.documentation import allowed

    return {
        "name": option.name,
        "default": option.default,
        "allowed": allowed(option) or None,
        "differs_in_a_pack": option.metadata["number"],
        "meaning": option.metadata["doc"],
    }
