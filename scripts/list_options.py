"""List every option of every algorithm, and of MEMO, in docs/options.md; `--check` only compares."""

import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from pages import write_or_check

from dr3_ray.algorithms.registry import ALGORITHMS, TITLES
from dr3_ray.policies.memo import MemoOptions
from dr3_ray.training.documentation import ByKind, allowed, needed, options_of

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
HEAD = """# Options of every algorithm

`scripts/list_options.py` makes this page from where the options are declared. `dr3-ray options DR3-CQL` prints the
same. Set one for all members with `--set critic_lr=1e-4`, sweep it with `--axis critic_lr=1e-4,3e-4`
([specifications](sweeps.md)), or give it to a config of RLlib: `DR3CQLConfig().training(critic_lr=1e-4)`
([RLlib](rllib.md)). Where options or defaults differ between discrete and continuous actions, the last column says for
which of them a line holds.

"""
CRITICS = """## DR3 and the critic's other regularisers

Every algorithm above that has a critic has these, too; a config of RLlib takes them in `.regularization(…)`.

"""
ADAPTATION = """## MEMO, in evaluation

`dr3-ray evaluate --adapt memo` takes these by `--set` ([a policy that adapts](policies.md#adapt-to-each-observation)).

"""
COLUMNS = "| option | default | allowed | meaning and source | actions |\n|---|---|---|---|---|\n"


def table(kinds: ByKind) -> str:
    """Return the options of an algorithm, a line each; one line where both kinds of actions have the same."""
    rows: dict[str, list[str]] = {}
    for kind, options in kinds.items():
        for option in options:
            rows.setdefault(row(option), []).append(kind)
    order = list(dict.fromkeys(line.split(" | ")[0] for line in rows))
    lines = sorted(rows, key=lambda line: order.index(line.split(" | ")[0]))
    return COLUMNS + "".join(f"{line} | {', '.join(rows[line])} |\n" for line in lines)


def row(option: "Field[Any]") -> str:
    """Return name, default, limits and meaning of an option."""
    limits = "; ".join(filter(None, [allowed(option), *needed(option)]))
    cells = (f"`{option.name}`", f"`{option.default!r}`", limits, option.metadata["doc"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells)


def page() -> str:
    """Return the page."""
    names = sorted(ALGORITHMS, key=lambda name: name == "BC")
    parts = [f"## {name}\n\n{TITLES[name]}.\n\n{table(options_of(name, 'training'))}" for name in names]
    memo = ADAPTATION + table({"discrete": fields(MemoOptions)})
    return HEAD + "\n".join([*parts, CRITICS + table(options_of("DR3-CQL", "regularization")), memo])


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), "lists other options"))
