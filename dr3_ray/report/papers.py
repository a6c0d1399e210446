"""Tables and figures for writing up: Markdown, LaTeX with booktabs, SVG and PDF."""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import pandas as pd

from dr3_ray.report import tables
from dr3_ray.report.judging import Judged
from dr3_ray.report.reader import COEFFICIENT

Kind = Literal["md", "tex", "svg", "pdf"]
KINDS: tuple[str, ...] = get_args(Kind)
CAPTION = "Interquartile mean over seeds, with 95% bootstrap intervals."
SPELLED = {"c₀": "$c_0$", "\N{EN DASH}": "--", "\N{DAGGER}": "$\\dagger$", "\N{NO-BREAK SPACE}": "~", " · ": ", "}


def text_table(rows: pd.DataFrame, axes: Sequence[str] = ()) -> pd.DataFrame:
    """Return rows of the summary as the page shows them, as text."""
    shown = tables.columns(rows)
    return pd.DataFrame(
        [
            {axis: str(row[axis]) for axis in axes}
            | {"c₀": f"{row[COEFFICIENT]:g}{tables.mark(row)}", "runs": tables.runs_cell(row).value}
            | {title.replace("\n", " "): " ".join(tables.cell(row, key)).strip() for key, title in shown.items()}
            for _, row in rows.iterrows()
        ]
    )


def markdown(judged: Iterable[Judged], notes: Sequence[str]) -> str:
    """Return verdicts and tables as Markdown, and the notes that they need."""
    parts = []
    for facet in judged:
        table = text_table(facet.rows, facet.axes)
        lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts.append(f"## {facet.heading}\n\n{' '.join(facet.verdict.sentences)}\n\n{body}\n")
    return "\n".join([*parts, *(f"- {note}" for note in notes)]) + "\n"


def latex(judged: Iterable[Judged]) -> str:
    """Return tables as LaTeX, for the package booktabs."""
    parts = []
    for facet in judged:
        body = text_table(facet.rows, facet.axes).to_latex(
            index=False, escape=True, caption=(_escaped(f"{facet.heading}. {CAPTION}"))
        )
        for character, spelled in SPELLED.items():
            body = body.replace(character, spelled)
        parts.append(body)
    return "% \\usepackage{booktabs}\n" + "\n".join(parts)


def captions(pictures: Iterable[tuple[str, str, str]]) -> str:
    """Return the captions of pictures, each given by its name, its table and its title."""
    return "".join(f"{name}: {heading}. {title}. {CAPTION}\n" for name, heading, title in pictures)


def _escaped(text: str) -> str:
    """Return text for LaTeX."""
    special = {"\\": r"\textbackslash ", "~": r"\textasciitilde ", "^": r"\textasciicircum "}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)
