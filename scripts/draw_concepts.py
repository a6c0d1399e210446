"""Draw member, pack, wrappers and probe into docs/pictures/concepts.svg; `--check` only compares."""

import sys
from pathlib import Path

from pages import write_or_check

PAGE = Path(__file__).parents[1] / "docs" / "pictures" / "concepts.svg"
INK, PALE, WARM, COOL = "#1f2933", "#eef2f6", "#fde8c8", "#d5e6f7"


def box(x: int, y: int, width: int, height: int, fill: str, *lines: str) -> str:
    """Return a rectangle with lines of text at its top; the first is bold."""
    shape = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{INK}"/>'
    texts = (
        f'<text x="{x + 10}" y="{y + 20 + 17 * number}"{"" if number else bold}>{line}</text>'
        for number, line in enumerate(lines)
        for bold in [' font-weight="bold"']
    )
    return "\n".join([shape, *texts])


def arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    """Return an arrow."""
    return f'<path d="M{x} {y} L{to_x} {to_y}" stroke="{INK}" stroke-width="2" marker-end="url(#head)"/>'


def picture() -> str:
    """Return the drawing."""
    members = [
        box(222, 132 + 50 * place, 156, 42, COOL, f"member {place}", f"c₀ = {coefficient}, seed {place % 2}")
        for place, coefficient in enumerate(("0", "0", "0.03"))
    ]
    shapes = [
        box(10, 130, 160, 90, PALE, "data set", "Arrow shards, mapped", "once a machine"),
        box(205, 90, 190, 205, "white", "pack: one trial of Tune"),
        *members,
        box(440, 50, 320, 250, PALE, "how steps are carried out", "in turn, stacked, recorded, compiled"),
        box(460, 100, 280, 185, WARM, "wrappers", "with_dr3, and other regularisers"),
        box(480, 150, 240, 120, "white", "objective", "a pure loss; knows of no", "DR3, no member, no device"),
        box(205, 330, 190, 75, PALE, "probe", "the same rows for every", "run on the same data"),
        box(
            440,
            330,
            320,
            75,
            PALE,
            "histories, index, report",
            "dot product, rank, TD error, returns,",
            "a row a member",
        ),
        arrow(170, 175, 203, 175),
        arrow(395, 190, 438, 190),
        arrow(300, 295, 300, 328),
        arrow(395, 367, 438, 367),
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 770 420" font-family="sans-serif" font-size="13">',
            '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
            f'<path d="M0 0 L6 3 L0 6 Z" fill="{INK}"/></marker></defs>',
            f'<rect width="770" height="420" fill="white"/><g fill="{INK}">',
            *shapes,
            "</g></svg>",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, picture(), "is another picture"))
