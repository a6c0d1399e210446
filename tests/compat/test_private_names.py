"""Private names of other libraries: each is still there, or one line says which is gone and what used it."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import optuna
import pytest
import torch

import dr3_ray
from dr3_ray import compat
from dr3_ray.compat import find
from dr3_ray.compat import optuna as of_optuna
from dr3_ray.compat import ray as of_ray
from dr3_ray.compat import rllib as of_rllib
from dr3_ray.compat import torch as of_torch
from dr3_ray.networks import convolutions, optim, products
from dr3_ray.networks.optim import fused_adam
from dr3_ray.networks.precision import check_precision
from dr3_ray.training.execution import inductor, recordings

PACKAGE = Path(dr3_ray.__file__).parent
GONE = object()
SINGLE = of_torch.NAMES | of_torch.COMPILER | of_ray.NAMES
OF_CLASSES = [
    (path, name, where)
    for table in (of_rllib.OVERRIDDEN, of_rllib.READ)
    for path, names in table.items()
    for name, where in names.items()
]


@pytest.mark.parametrize("path", SINGLE)
def test_a_name_is_there(path):
    assert find(path, GONE) is not GONE, f"{path} is gone; used in {SINGLE[path]}"


@pytest.mark.parametrize(("path", "name", "where"), OF_CLASSES, ids=[f"{each[0]}.{each[1]}" for each in OF_CLASSES])
def test_a_class_has_it_still(path, name, where):
    found = find(path)
    assert found is not None, f"{path} is gone; used in {where}"
    own = (inspect.getsource(each) for each in found.__mro__ if each.__module__.startswith("ray."))
    assert hasattr(found, name) or any(f"self.{name} =" in text or f"self.{name}:" in text for text in own), (
        f"{path}.{name} is gone; used in {where}"
    )


def test_a_trial_of_optuna_has_its_number():
    study = optuna.create_study()
    trial = study.ask()
    study.tell(trial, 1.0)
    assert of_optuna.id_of(study.trials[0]) == of_optuna.id_of(trial) == 0, of_optuna.NAMES
    of_optuna.note(study, study.ask().number, "scores", [1.0])
    assert study.trials[1].user_attrs == {"scores": [1.0]}, of_optuna.NAMES


def ours():
    """Every module, and its name."""
    for found in pkgutil.walk_packages(dr3_ray.__path__, "dr3_ray."):
        if not found.name.endswith("__main__"):
            yield found.name, importlib.import_module(found.name)


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_every_method_of_rays_that_is_overridden_stands_in_the_table():
    found: dict[str, set[str]] = {}
    for name, module in ours():
        for made in vars(module).values():
            if inspect.isclass(made) and made.__module__ == name:
                for each in filter(is_private, vars(made)):
                    bases = [base for base in made.__mro__[1:] if base.__module__.startswith("ray.")]
                    if base := next((base for base in bases if each in vars(base) and each != "_abc_impl"), None):
                        found.setdefault(f"{base.__module__}.{base.__qualname__}", set()).add(each)
    table = {path: set(names) for path, names in of_rllib.OVERRIDDEN.items()}
    assert table == found | {"ray.tune.schedulers.pbt.PopulationBasedTraining": {"_exploit"}}  # by a mixin


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name != "compat":
            yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def test_no_other_file_has_a_private_name_of_a_library_or_a_mock():
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                assert not (parts[0] != "dr3_ray" and any(map(is_private, parts))), f"{path}:{node.lineno}"
                assert parts[:2] != ["unittest", "mock"], f"{path}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert not any(is_private(part) for a in node.names for part in a.name.split(".")), path
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                root = node.value
                while isinstance(root, ast.Attribute):
                    root = root.value
                allowed = not isinstance(root, ast.Name) or root.id not in ("torch", "ray", "optuna", "gym", "minari")
                assert allowed, f"{path}:{node.lineno} uses {ast.unparse(node)}"


def test_what_is_private_and_not_ours_stands_in_a_table():
    """Private names that are used, and nowhere in the package defined, but for those that Python documents."""
    trees = list(sources())
    nodes = [(path, node) for path, tree in trees for node in ast.walk(tree)]
    ours = {node.name for _, node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    ours |= {node.attr for _, node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    ours |= {node.id for _, node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    known = {name for table in (of_rllib.OVERRIDDEN, of_rllib.READ) for names in table.values() for name in names}
    for path, node in nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            assert node.attr in ours | known | {"_replace", "_asdict", "_exit"}, f"{path}:{node.lineno} {node.attr}"


def test_a_name_that_is_gone_is_none():
    assert find("torch.nothing") is None and find("torch._nothing.at_all") is None
    assert find("torch.utils._pytree.tree_map_only") is torch.utils._pytree.tree_map_only


def test_a_change_lasts_as_long_as_it_is_asked_for():
    holder, mapping = type("Holder", (), {"a": 1}), {"a": 1}
    with pytest.raises(KeyError), compat.attribute(holder, "a", 2), compat.item(mapping, "a", 2):
        assert holder.a == 2 and mapping == {"a": 2}
        with compat.item(mapping, "b", 3):
            assert mapping == {"a": 2, "b": 3}
        assert mapping == {"a": 2}
        raise KeyError
    assert holder.a == 1 and mapping == {"a": 1}


def test_without_its_kernel_adam_is_its_equations(monkeypatch):
    def stepped():
        torch.manual_seed(0)
        pieces = [[torch.rand(shape) for shape in ((3, 4), (5,))] for _ in range(4)]
        fused_adam(*pieces, [torch.tensor(3.0)] * 2, settings=(1e-2, 1e-8, 0.1))
        return [each for place in (0, 2, 3) for each in pieces[place]]

    kernel = stepped()
    monkeypatch.setattr(optim.compat, "fused_adamw", None)
    torch.testing.assert_close(stepped(), kernel)


def test_without_its_operators_onednn_is_left_out(monkeypatch):
    x, layers = torch.rand(1, 2048, 64), [(torch.rand(1, 64, 64), torch.rand(1, 1, 64))] * 2
    expected = torch.relu(torch.relu(x @ layers[0][0] + layers[0][1]) @ layers[1][0] + layers[1][1])
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", True)
    torch.testing.assert_close(products.relu_layers(x, layers), expected)
    for name in ("linear", "convolution", "_bf16_supported"):
        monkeypatch.setattr(of_torch, name, None)
    assert not products.by_onednn(x, layers)
    assert not convolutions.by_onednn(1, torch.rand(8, 4, 84, 84))
    torch.testing.assert_close(products.relu_layers(x, layers), expected)
    with pytest.raises(dr3_ray.UserError, match="precision='bf16' needs a CPU with AVX-512"):
        check_precision("bf16", torch.device("cpu"))


def test_without_its_dispatch_nothing_is_recorded(monkeypatch):
    network = torch.nn.Linear(2, 2)
    assert recordings.Recordings.serve(network, torch.device("cpu"))
    monkeypatch.setattr(of_torch, "CAN_RECORD", False)
    assert not recordings.Recordings.serve(network, torch.device("cpu"))


def test_without_its_compiler_a_graph_is_refused(monkeypatch):
    monkeypatch.setattr(of_torch, "COMPILER", {"torch._inductor.nothing": ""})
    graph = torch.fx.symbolic_trace(torch.nn.ReLU()).graph
    with pytest.raises(RuntimeError, match=r"torch .* has no nothing"):
        inductor.compiled(graph, [torch.rand(3)])


def test_sums_and_replays_do_without(monkeypatch):
    for name in ("_foreach_add", "_below_autograd"):
        monkeypatch.setattr(of_torch, name, None)
    sums = [torch.ones(2), torch.zeros(3)]
    of_torch.add_each(sums, [torch.ones(2), torch.ones(3)])
    assert sums[0].tolist() == [2.0, 2.0] and sums[1].tolist() == [1.0] * 3
    weight = torch.ones(1, requires_grad=True)
    with of_torch.below_autograd():
        assert not (2 * weight).requires_grad
