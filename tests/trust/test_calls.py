"""Nothing in the package unpickles files, evaluates text or imports names from files, but for what is listed here."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "dr3_ray"
# a call by its last names, and the files that may make it
LISTED = {
    "pickle.load": [], "pickle.loads": [], "dill.load": [], "joblib.load": [], "marshal.loads": [], "shelve.open": [],
    "pandas.read_pickle": [], "pd.read_pickle": [], "torch.load": [], "Unpickler": [],
    "cloudpickle.load": [],
    "torch.jit.load": ["policies/export.py"],  # what this process has just written, to compare it
    "cloudpickle.loads": [
        "cluster/environments.py",  # what this user's own script registered, in a process that Ray started for it
        "cluster/pickles.py",  # files that are signed, or trusted
        "evaluation/processes.py",  # what its own parent sends it
    ],
    "yaml.load": ["cli/specfile.py"], "YAML": ["cli/specfile.py"],  # of type "safe"
    "yaml.unsafe_load": [], "yaml.full_load": [], "yaml.load_all": [],
    "eval": [], "compile": [],
    "exec": ["training/execution/tape.py"],  # code that torch.fx wrote in this process
    "import_module": [  # names that stand there
        "__init__.py", "compat/__init__.py", "data/__init__.py", "data/exporters/__init__.py",
        "data/importers/__init__.py", "diagnostics/__init__.py",
        "policies/players.py",  # what the user's own command names as a player
        "report/__init__.py",
    ],
    "__import__": [], "spec_from_file_location": [], "run_path": ["cli/reproducing.py"], "run_module": [], "locate": [],
    "Tuner.restore": ["evolution/snapshots.py"],  # after check_trusted
    "RLModule.from_checkpoint": ["sweep/trained.py"],  # after check_trusted
    "Algorithm.from_checkpoint": [],
}  # fmt: skip


def calls_in(text: str) -> set[str]:
    """What is called, by the names that stand there; and which arguments are named."""
    nodes = list(ast.walk(ast.parse(text)))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)} | {
        f"{node.arg}=" for node in nodes if isinstance(node, ast.keyword)
    }


@pytest.fixture(scope="module")
def calls() -> dict[str, set[str]]:
    """The calls in each file of the package."""
    return {str(path.relative_to(PACKAGE)): calls_in(path.read_text()) for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("name", LISTED)
def test_who_may_run_what_is_in_a_file(name: str, calls: dict[str, set[str]]) -> None:
    def is_it(call: str) -> bool:
        # networks.eval() and re.compile() are others
        return call == name or (name not in ("eval", "compile") and call.endswith(f".{name}"))

    assert sorted(path for path, names in calls.items() if any(map(is_it, names))) == LISTED[name]


def test_pickles_are_allowed_by_an_option_only_where_the_user_gives_trust(calls: dict[str, set[str]]) -> None:
    allowed = {path: names & {"allow_pickle=", "weights_only=", "trust_remote_code="} for path, names in calls.items()}
    assert {path: names for path, names in allowed.items() if names} == {"data/importers/npz.py": {"allow_pickle="}}
