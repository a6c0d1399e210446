"""Check that docstrings and names read as `CONTRIBUTING.md` asks for: first sentences, Google's sections, nouns.

Prints a line for each mistake and exits with 1 if there is any. ruff's D401 looks for the imperative of verbs.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("benchmarks", "dr3_ray", "scripts", "studies", "sweeps")
WORDS = 25  # of a first sentence at most
END = re.compile(r"(?<=[.!?])(?<! al\.)(?<!eq\.)\s+(?=[^a-z])")
NO_VERB = re.compile(r"(All?|An?|As|Each|Every|How|Its|None?|Of|One|These?|What|Where|Whether)\b|[^A-Z]|[A-Z][^a-z]")
PUZZLES = re.compile(r"\b(of which|of whose|is had|what is not)\b")
NAMES = ("each", "found")  # where a noun of the domain says what it is
COMMENT = re.compile(r"(^\s*|  )# .*")

# pydoclint's findings that a section contradicts its function. It also asks for every section as soon as there is one,
# where types and the first sentence may say all, and does not see the errors of called functions: these are left out.
WRONG = re.compile(r"DOC(001|002|003|102|104|202|403|405|501)")


def main() -> int:
    """Print all mistakes; return the exit code."""
    files = sorted(file for folder in FOLDERS for file in Path(folder).rglob("*.py"))
    mistakes = [f"{file}:{line}: {what}" for file in files for line, what in mistakes_in(file.read_text())]
    package = (file for file in files if file.parts[0] == "dr3_ray")
    mistakes += [f"{file}:{line}: {what}" for file in package for line, what in empty_names_in(file.read_text())]
    print("\n".join(mistakes := mistakes + wrong_sections()) or "The prose is in order.")
    return bool(mistakes)


def mistakes_in(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the kind of each mistake in a module."""
    for number, line in enumerate(source.splitlines(), start=1):
        if (comment := COMMENT.search(line)) and (puzzle := PUZZLES.search(comment[0])):
            yield number, f"name the thing in the place of `{puzzle[0]}`"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) or not (text := ast.get_docstring(node)):
            continue
        first, number = END.split(text.partition("\n\n")[0])[0], node.body[0].lineno
        name = getattr(node, "name", "the module")
        if puzzle := PUZZLES.search(text):
            yield number, f"name the thing in the place of `{puzzle[0]}`"
        if len(first.split()) > WORDS:
            yield number, f"the first sentence of `{name}` has more than {WORDS} words"
        is_property = any("property" in ast.unparse(each) for each in getattr(node, "decorator_list", ()))
        if isinstance(node, ast.FunctionDef) and not is_property and NO_VERB.match(first):
            yield number, f"the docstring of `{name}`, which does something, does not start with a verb"


def empty_names_in(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the kind of each name in a module that says nothing of what it names; fields are formats."""
    tree = ast.parse(source)
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    fields = {line.target for one in classes for line in one.body if isinstance(line, ast.AnnAssign)}
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else getattr(node, "arg", "")
        if name in NAMES and node not in fields:
            yield node.lineno, f"`{name}` says nothing of what it is: take the domain's noun"


def wrong_sections() -> list[str]:
    """Return pydoclint's findings about sections that contradict their function."""
    pydoclint = Path(sys.executable).with_name("pydoclint")
    done = subprocess.run([pydoclint, "--quiet", *FOLDERS], capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if WRONG.search(line) or done.returncode > 1]


if __name__ == "__main__":
    sys.exit(main())
