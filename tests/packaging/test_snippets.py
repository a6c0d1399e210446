"""What the documents print runs as it is printed, or says that it is an excerpt; every command in them can be typed.

A block without `<!-- excerpt -->` in the line above it is executed: Python page by page, then the commands of `console`
blocks, each page's in a folder of its own beside what the pages name; specifications are foreseen by
`tests/sweep/test_plan.py`. A command within a sentence is executed, too, unless it names what a reader has to fill in
(RUN, `…`), another place, or hours of training. Excerpts are read to their last word, and sweeps in them foreseen.
"""

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import minari
import pytest
import typer

from dr3_ray.cli.app import app
from dr3_ray.data import export_dataset

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
HERE = ("runs", "flights.csv", "hopper-medium-v2.hdf5")  # what the pages name, beside Minari's folder
LONG = ("sweep", "reproduce", "serve", "fetch")  # they train for hours, wait for somebody, or need a cluster
FORESEEABLE = re.compile(r"embedded:|flights$")  # data that a sweep is foreseen on
COMMANDS = typer.main.get_command(app)
USAGE_ERROR = typer.BadParameter.__mro__[1]  # of click, wherever typer has it
BY_THEMSELVES = {"README.md"}  # pages whose blocks know nothing of each other
RUN = """
import os
import sys
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec

# the run that the pages name; the README makes everything itself, in the end
tiny = {"options": {"hidden_sizes": [8]}, "coefficients": [0.1], "seeds": 1, "steps": 10, "evaluations": 1}
what = {"datasets": ["embedded:breakout-replay"], "evaluation_episodes": 2}
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
    folder = page.removesuffix(".sh") + ".commands"
    os.mkdir(folder), os.chdir(folder)
    for name in HERE:
        os.symlink(f"../{name}", name)
    for line in open(page):
        try:
            main(shlex.split(line, comments=True)[1:])
        except SystemExit as end:
            assert not end.code, line
    os.chdir("..")
"""


@pytest.fixture
def sources(tmp_path, monkeypatch) -> None:
    """What docs/data.md and the README import, here of other environments."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for name in ("D4RL/door/human-v2", "D4RL/door/expert-v2"):
        played = minari.DataCollector(gym.make("CartPole-v1"))
        for seed in range(2):
            played.reset(seed=seed)
            while not any(played.step(seed)[2:4]):
                pass
        played.create_dataset(name)
    rows = [f"{step / 8},{step % 3},{step % 2},{step % 5 == 4:d}" for step in range(20)]
    (tmp_path / "flights.csv").write_text("\n".join(["obs_0,action,reward,terminated", *rows]))
    export_dataset("embedded:pendulum-replay?take=first:0.1", "d4rl", tmp_path / "hopper-medium-v2.hdf5")


def typed(line):
    """The command that a line names, and the words behind its name."""
    words, command = shlex.split(line, comments=True)[1:], COMMANDS
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    return command, words[: words.index(">")] if ">" in words else words


def reads(line):
    """Whether a command takes all words of a line, and lacks none."""
    command, words = typed(line)
    try:
        return bool(command.make_context("dr3-ray", list(words)))
    except (USAGE_ERROR, typer.Exit):  # the second after --help
        return False


def commands(page):
    """Every command of a page, and whether it stands in a block, an excerpt or a sentence."""
    for block in FENCE.finditer(PAGES[page]):
        for line in re.sub(r"\\\n\s*", " ", block["text"]).splitlines():
            if command := re.match(r"\s*(?:\$ )?(dr3-ray .*)", line):
                yield re.sub(r"\s+#.*", "", command[1]), "excerpt" if block["excerpt"] else "block"
    for command in re.finditer(r"`(dr3-ray [^`]+)`", FENCE.sub("", PAGES[page])):
        yield " ".join(command[1].split()), "sentence"


def lines_to_run(page):
    """The commands of a page that are executed; of excerpts the sweeps of what is here, which are foreseen."""
    for line, place in commands(page):
        command, words = typed(line)
        away = "://" in line or any(re.fullmatch(r"[A-Z]+([.:/=].*)?", word) for word in words)
        data = [name for option, name in pairwise(words) if option in ("--dataset", "--data")]
        runs = words and not away and command.name not in LONG and reads(line)
        if place == "block" or (place == "sentence" and runs):
            yield line
        elif place == "excerpt" and data and command.name == "sweep" and all(map(FORESEEABLE.match, data)):
            yield f"{line} --dry-run --no-calibration"


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
@pytest.mark.usefixtures("sources")
def test_python_and_commands_run(tmp_path):
    """All pages in one process with one Ray, each with names of its own; then their commands."""
    files = []
    for page, text in PAGES.items():
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        parts = blocks if page in BY_THEMSELVES else ["\n".join(blocks)] if blocks else []
        for number, part in enumerate(parts if page not in ELSEWHERE else ()):
            files.append(tmp_path / f"{page.replace('/', '-')}-{number}.py")
            files[-1].write_text(part)
    once: set[str] = set()
    for page in PAGES:
        if lines := [line for line in dict.fromkeys(lines_to_run(page)) if line not in once]:
            once.update(lines)
            files.append(tmp_path / f"{page.replace('/', '-')}.sh")
            files[-1].write_text("\n".join(lines))
    assert {path.name for path in files} >= {"report.md.sh", "diagnose.md.sh", "policies.md.sh"}
    assert {path.name for path in files} >= {"rllib.md-0.py", "search.md-0.py", "gpu.md-0.py", "README.md-3.py"}
    home = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "DR3_RAY_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", f"HERE = {HERE}\n{RUN}", *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 trials" in done.stdout and "{'finished': 3}" in done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))])
def test_commands_can_be_typed(page):
    """To their last word, but for `…`; a sentence may name one by its first words and an option alone."""
    for line, place in commands(page):
        command, words = typed(line)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line
        assert words == ["--help"] or not getattr(command, "commands", {}), f"{line}: there is no such command"
        assert place == "sentence" or "…" in words or reads(line), line


def test_these_are_executed():
    assert {"dr3-ray evaluate runs/breakout", "dr3-ray diagnose runs/breakout"} <= set(lines_to_run("README.md"))
    assert "dr3-ray options DR3-CQL" in lines_to_run("sweeps.md")
    assert sum(line.endswith(" --dry-run --no-calibration") for page in PAGES for line in lines_to_run(page)) > 5
