"""What the documents print runs as it is printed, or says that it is an excerpt; commands have the options they name.

A block without `<!-- excerpt -->` in the line above it is executed: Python page by page, then the commands of `console`
blocks in the folder in which the pages' run lies; specifications are foreseen by `tests/sweep/test_plan.py`.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import minari
import pytest
import typer

from dr3_ray.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
PAGES["README.md"] = (ROOT / "README.md").read_text()
ELSEWHERE = {"drop_in.md"}  # tests/rllib/test_drop_in.py
FORESEEN = {"sweeps.md", "search.md"}  # tests/sweep/test_plan.py
DRAWN = {"development/architecture.md"}  # scripts/draw_rooms.py --check
FENCE = re.compile(
    r"^(?P<excerpt> *<!-- excerpt -->\n)?(?P<indent> *)```(?P<kind>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
BY_THEMSELVES = {"README.md"}  # pages whose blocks know nothing of each other
RUN = """
import os
import sys
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec

# the run that the pages name; the README makes everything itself, in the end
tiny = {"options": {"hidden_sizes": [8]}, "coefficients": [0.1], "seeds": 1, "steps": 10, "evaluations": 1}
what = {"datasets": ["embedded:breakout-replay"], "environment": "none", "objective": "td_error"}
train_sweep(SweepSpec(out="runs/breakout", **what, **tiny))
for page in filter(lambda each: each.endswith(".py"), sys.argv[1:]):
    if page.endswith("README.md-0.py"):
        os.mkdir("readme"), os.chdir("readme")
    code = compile(open(page).read(), page, "exec")
    exec(code, {"__name__": page})

import shlex
from dr3_ray.cli.app import main

os.chdir("..")  # from the README's folder
for page in filter(lambda each: each.endswith(".sh"), sys.argv[1:]):
    for line in open(page):
        try:
            main(shlex.split(line, comments=True)[1:])
        except SystemExit as end:
            assert not end.code, line
"""


@pytest.fixture
def minari_sets(tmp_path, monkeypatch) -> Path:
    """Where Minari finds the data set that docs/data.md names, here of another environment."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    played = minari.DataCollector(gym.make("CartPole-v1"))
    for seed in range(2):
        played.reset(seed=seed)
        while not any(played.step(seed)[2:4]):
            pass
    played.create_dataset("D4RL/door/human-v2")
    return tmp_path / "minari"


def executed(text):
    """The blocks of a page that are no excerpts."""
    return [block for block in FENCE.finditer(text) if not block["excerpt"]]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_executed_or_an_excerpt(page):
    text = PAGES[page]
    assert text.count("```") == 2 * len(list(FENCE.finditer(text))), "a fence is not closed"
    assert text.count("<!-- excerpt -->") == len(list(FENCE.finditer(text))) - len(executed(text))
    for block in executed(text):
        lines = re.sub(r"\\\n\s*", " ", block["text"]).splitlines()
        assert (
            block["kind"] == "python"
            or (block["kind"] == "yaml" and page in FORESEEN)
            or (block["kind"] == "mermaid" and page in DRAWN)
            or (block["kind"] == "console" and all(re.match(r"(\$ )?dr3-ray ", line) for line in lines))
        ), f"{block[0]}\nis not executed by a test: write <!-- excerpt --> in the line above it"


@pytest.mark.slow
def test_python_and_commands_run(tmp_path, minari_sets):
    """All pages in one process with one Ray, each with names of its own; then their commands."""
    files = []
    for page, text in PAGES.items():
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        parts = blocks if page in BY_THEMSELVES else ["\n".join(blocks)] if blocks else []
        for number, part in enumerate(parts if page not in ELSEWHERE else ()):
            files.append(tmp_path / f"{page.replace('/', '-')}-{number}.py")
            files[-1].write_text(part)
    for page, text in PAGES.items():
        if commands := [block["text"] for block in executed(text) if block["kind"] == "console"]:
            files.append(tmp_path / f"{page.replace('/', '-')}.sh")
            files[-1].write_text("".join(commands).replace("\\\n", " ").replace("$ dr3-ray", "dr3-ray"))
    assert {path.name for path in files} >= {"report.md.sh", "diagnose.md.sh", "policies.md.sh"}
    assert {path.name for path in files} >= {"rllib.md-0.py", "search.md-0.py", "gpu.md-0.py", "README.md-3.py"}
    home = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", RUN, *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 trials" in done.stdout and "{'finished': 3}" in done.stdout


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "dr3-ray " in text])
def test_commands_have_these_options(page):
    commands = typer.main.get_command(app)
    text = re.sub(r"\\\n\s*", " ", PAGES[page])
    for line in re.findall(r"^(?:\$ )?(dr3-ray .*)$", text, re.MULTILINE):
        words, command = shlex.split(line, comments=True)[1:], commands
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked <= known, line
