"""Draw the rooms of the package and what they import into docs/development/architecture.md; `--check` only compares.

An arrow says that a room imports another. Those that follow are left out: A to C where A imports B, and B imports C.
"""

import sys
from pathlib import Path

from grimp import build_graph  # comes with import-linter
from pages import write_or_check

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "development" / "architecture.md"
BEGIN, END = "<!-- the picture, made by scripts/draw_rooms.py -->\n", "<!-- end of the picture -->\n"
GROUND = ("errors", "observations", "options", "quantities", "stores", "uris", "types")  # files, and no folders


def rooms() -> dict[str, set[str]]:
    """Return every room with those that it imports, without imports for type checkers alone."""
    graph = build_graph("dr3_ray", exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules - {"dr3_ray", "dr3_ray.__main__"}:
        room = module.split(".")[1]
        imported = {each.split(".")[1] for each in graph.find_modules_directly_imported_by(module) if "." in each}
        found.setdefault(room, set()).update(imported - {room})
    return found


def direct(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that follow from no others."""
    beyond: dict[str, set[str]] = {}

    def reached(room: str) -> set[str]:
        if room not in beyond:
            beyond[room] = found[room].union(*map(reached, found[room]))
        return beyond[room]

    arrows = [(room, below) for room in found for below in found[room]]
    return sorted((room, below) for room, below in arrows if not any(below in reached(each) for each in found[room]))


def picture() -> str:
    """Return the drawing, as Mermaid has it."""
    found = rooms()
    lines = [f"    {room}([{room}.py])" if room in GROUND else f"    {room}[{room}/]" for room in sorted(found)]
    lines += [f"    {one} --> {other}" for one, other in direct(found)]
    return "\n".join(["```mermaid", "graph TD", *lines, "```", ""])


def main() -> int:
    """Draw the picture into the page; return the exit code, 1 if `--check` finds another picture there."""
    head, rest = PAGE.read_text().split(BEGIN)
    _, tail = rest.split(END)
    return write_or_check(PAGE, head + BEGIN + picture() + END + tail, "shows other rooms than there are")


if __name__ == "__main__":
    sys.exit(main())
