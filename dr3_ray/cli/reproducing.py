"""`dr3-ray reproduce`: the studies of the repository."""

import ast
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

import dr3_ray
from dr3_ray.cli.commands import refuse_idle
from dr3_ray.cli.document import AsJson, print_document
from dr3_ray.cli.paths import PATH
from dr3_ray.errors import UserError, check_known, first_line
from dr3_ray.process import stopping
from dr3_ray.trust.text import printable

FOLDER = "studies"
BEGINNING = 'if __name__ == "__main__":'  # which what they share does not have


def reproduce(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Of the study; without it, all are listed.")] = None,
    scale: Annotated[str, typer.Option(help="How much of it: smoke (seconds), desk or full.")] = "desk",
    out: Annotated[Path | None, typer.Option(help="Where to.", show_default="runs/NAME", **PATH)] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study of the repository, from its data to its page; the same command again goes on with what is missing.

    Example: dr3-ray reproduce

    Example: dr3-ray reproduce coadaptation --scale smoke --out runs/coadaptation
    """
    studies = _studies()
    name = name and name.replace("-", "_")
    if name is None:
        refuse_idle(context, ("scale", "out"), "without the name of a study")
        questions = {title: _question(path) for title, path in studies.items()}
        if as_json:
            print_document(questions)
            return
        for title, question in questions.items():
            print(f"{title}: {question}")
        return
    refuse_idle(context, ("as_json",), "with the name of a study, which prints what it does")
    check_known("study", [name], studies)
    study, typed = studies[name], stopping.command_line()
    stopping.advise(lambda: typed)
    sys.argv[:] = [str(study), "--scale", scale, "--out", str(out or Path("runs") / name)]
    sys.path.insert(0, str(study.parent))  # as Python has it of a script, beside what studies share
    runpy.run_path(str(study), run_name="__main__")  # here, where signals are handled from the first moment on


def _question(study: Path) -> str:
    """Return the first line of a study's document."""
    try:
        document = ast.get_docstring(ast.parse(study.read_bytes())) or ""
    except (SyntaxError, ValueError) as error:
        return f"it cannot be read ({first_line(error)})"
    return str(printable((document.splitlines() or ["it does not say what it asks"])[0]))


def _studies() -> dict[str, Path]:
    """Return the files of the studies by their names.

    Raises:
        UserError: the repository is not here.
    """
    for place in (Path(dr3_ray.__file__).parents[1], Path.cwd()):
        files = sorted(path for path in (place / FOLDER).glob("*.py") if path.is_file())
        if studies := {path.stem: path for path in files if BEGINNING in path.read_text("utf-8", "replace")}:
            return studies
    raise UserError(
        "studies are in the repository, and not in the installed package: run this in a checkout, where studies/ is"
    )
