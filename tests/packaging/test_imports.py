"""What an import may drag in: the training core has to run where Ray is not installed."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "dr3_ray"
LAYERS_WITH_RAY = {"rllib", "sweep", "cluster", "evolution", "compat"}


def modules_after(statement: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter that ran the statement."""
    return {name.split(".")[0] for name in every_module_after(statement)}


def every_module_after(statement: str) -> list[str]:
    """The whole names."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    names: list[str] = json.loads(out.splitlines()[-1])
    return names


def test_the_package_imports_neither_ray_nor_torch():
    assert not {"ray", "torch"} & modules_after("import dr3_ray, dr3_ray.errors")


@pytest.mark.slow
def test_only_the_layers_around_rllib_import_ray():
    """Each module of the layers that do without Ray, imported on its own terms, in one interpreter."""
    names = [info.name for info in pkgutil.iter_modules([str(PACKAGE)]) if info.name not in LAYERS_WITH_RAY]
    walk = "import importlib, pkgutil, dr3_ray\n" + "\n".join(
        f"module = importlib.import_module('dr3_ray.{name}')\n"
        "for info in pkgutil.walk_packages(getattr(module, '__path__', []), module.__name__ + '.'):\n"
        "    importlib.import_module(info.name)"
        for name in names
    )
    assert "ray" not in modules_after(walk)


def test_the_training_core_starts_without_what_it_does_not_need():
    layers = ("losses", "regularizers", "networks", "diagnostics", "algorithms", "training")
    names = modules_after("import " + ", ".join(f"dr3_ray.{layer}" for layer in layers))
    assert not {"matplotlib", "minari", "h5py", "pandas"} & names


@pytest.mark.slow
def test_a_trial_starts_without_the_parts_of_scipy():
    """Half a second, of whose results a trial has none."""
    names = every_module_after("import dr3_ray.sweep.trials.trainable, dr3_ray.rllib")
    assert "ray.rllib" in names and not {"scipy.signal", "scipy.stats", "scipy.linalg"}.intersection(names)


@pytest.mark.slow
def test_the_driver_of_a_sweep_does_without_what_trains_and_what_logs(tmp_path):
    """RLlib, and MLflow and W&B, which Ray would import: two seconds."""
    sweep = f"""
from dr3_ray import SweepSpec, run_sweep
what = {{"datasets": ["embedded:breakout-replay"], "environment": "none", "out": {str(tmp_path / "run")!r}}}
size = {{"coefficients": [0.1], "seeds": 1, "options": {{"hidden_sizes": [8]}}, "steps": 1, "evaluations": 1}}
run_sweep(SweepSpec(**what, **size))"""
    names = every_module_after(sweep)
    assert (tmp_path / "run" / "trials").is_dir() and "ray.tune" in names
    assert not {"ray.rllib", "mlflow", "wandb"}.intersection(names)


@pytest.mark.slow
def test_the_first_update_does_not_wait_for_sympy():
    """Which torch imports, in half a second, to compare the shapes of gradients that it is given."""
    train = """
from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
data, algorithm = load_dataset("embedded:breakout-replay"), find("DR3-CQL", "discrete")
members = [Member.from_dict(algorithm, {"hidden_sizes": [8], "dr3_coeff": 0.1, "seed": seed}) for seed in (0, 1)]
Population.of(algorithm, members, data, data.spaces).update(1)"""
    assert "sympy" not in modules_after(train)
