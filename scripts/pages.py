"""Pages that a script makes of the code: it writes them, or with `--check` compares them."""

import sys
from pathlib import Path


def write_or_check(page: Path, text: str, differs: str) -> int:
    """Write a page; with `--check` compare it, and say that what it shows `differs`. Return the exit code."""
    if "--check" not in sys.argv:
        page.write_text(text)
        return 0
    if page.is_file() and page.read_text() == text:
        return 0
    print(f"{page.name} {differs}: run scripts/{Path(sys.argv[0]).name}", file=sys.stderr)
    return 1
