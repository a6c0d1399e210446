"""Exported policies: their own runtimes give the same actions, in batches of any size; or nothing is written."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium import spaces

from dr3_ray import load_policy
from dr3_ray.algorithms.registry import find
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.errors import UserError
from dr3_ray.policies import export as exporting
from dr3_ray.policies.export import WRITERS, export, observations
from tests.policies.conftest import untrained
from tests.policies.test_playing import command
from tests.room import files_up_to

BOX = SpaceSpec.from_gymnasium(spaces.Box(-1, 1, (3,)))
WIDE = SpaceSpec.from_gymnasium(spaces.Box(np.array([-2.0, 0.0], "f4"), np.array([3.0, 10.0], "f4")))
GRID = SpaceSpec.from_gymnasium(spaces.Box(0, 20, (2, 2), np.int32))
IMAGE = SpaceSpec.from_gymnasium(spaces.Box(0, 255, (36, 36, 3), np.uint8))
BOTH = SpaceSpec.from_gymnasium(
    spaces.Dict({"camera": spaces.Box(0, 255, (36, 36, 3), np.uint8), "joints": spaces.Box(-np.inf, np.inf, (2,))})
)
INPUT = {"encoder": "nature_cnn", "critic_actions": "input"}
CASES = {
    "numbers": ("DR3-TD3BC", "continuous", BOX, WIDE, {}),
    "wide": ("DR3-CQL", "continuous", BOX, GRID, {"hidden_sizes": [512, 512]}),  # where products have fast paths
    "choices": ("DR3-REM", "discrete", BOX, SpaceSpec.from_gymnasium(spaces.Discrete(4, start=2)), {}),
    "image": ("DR3-DQN", "discrete", IMAGE, SpaceSpec.from_gymnasium(spaces.Discrete(3)), {"encoder": "nature_cnn"}),
    "input": ("DR3-CQL", "discrete", IMAGE, SpaceSpec.from_gymnasium(spaces.Discrete(3)), INPUT),
    "regularized": ("DR3-IQL", "continuous", BOX, WIDE, {"actor_layer_norm": True, "actor_dropout": 0.5}),
    "parts": ("BC", "continuous", BOTH, WIDE, {"encoder": {"camera": "impala"}}),
}


def run_by_itself(form: str, file, batches: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """What the file's own runtime makes of each batch, in a process without this package for torch's formats."""
    if form == "onnx":
        session = onnxruntime.InferenceSession(str(file))
        return [np.asarray(session.run(["action"], given)[0]) for given in batches]
    paths = [file.with_suffix(f".{number}.npz") for number in range(len(batches))]
    for path, given in zip(paths, batches, strict=True):
        np.savez(path, *given.values())
    load = "torch.jit.load(sys.argv[1])" if form == "torchscript" else "torch.export.load(sys.argv[1]).module()"
    code = f"""
import sys, numpy as np, torch
policy = {load}
for path in sys.argv[2:]:
    given = np.load(path)
    np.save(path[:-1] + "y", policy(*(torch.from_numpy(given[name]) for name in given.files)).numpy())
assert "dr3_ray" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code, *map(str, [file, *paths])], check=True)
    return [np.load(path.with_suffix(".npy")) for path in paths]


# half a minute each; ONNX's writer traces them alike
LONG = {("pt2", "wide"), ("pt2", "parts"), ("pt2", "choices"), ("pt2", "input")}
EVERY = [(form, case) for form in WRITERS for case in CASES if (form, case) not in LONG]


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")  # a trace has tensors for shapes
@pytest.mark.parametrize(("form", "case"), EVERY)
def test_the_file_acts_as_the_policy(form, case, tmp_path):
    name, kind, seen, acted, options = CASES[case]
    policy = untrained(find(name, kind), seen, acted, **options)
    card = export(policy, form, tmp_path / f"policy.{form}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"policy.{form}", f"policy.{form}.md"]
    assert f"output `action`: {acted.played_dtype if acted.n is None else 'int64'}" in card.read_text()
    samples = [observations(policy, count) for count in (1, 7)]
    given = [{f"observation_{key}" if key else "observation": part for key, part in each.items()} for each in samples]
    for each, found in zip(samples, run_by_itself(form, tmp_path / f"policy.{form}", given), strict=True):
        np.testing.assert_allclose(found, policy.act(each.get("", each)), atol=1e-3)


@pytest.mark.slow
def test_the_command_writes_a_card(run, tmp_path, capsys):
    out = tmp_path / "new" / "policy.onnx"
    assert command("export", run, "--to", "onnx", "--out", out, "--where", "dr3_coeff=0.1") == 0
    assert capsys.readouterr().out == f"written: {out}, and what it is: {out}.md\n"
    card = (tmp_path / "new" / "policy.onnx.md").read_text()
    config = json.loads(re.search(r"```json\n(.*?)\n```", card, re.DOTALL)[1])
    assert (config["dr3_coeff"], config["seed"]) == (0.1, load_policy(run, {"dr3_coeff": 0.1}).config["seed"])
    assert "of 1 configurations with dr3_coeff=0.1 the one with the best episode_return_mean" in card
    assert "# DR3-CQL on cartpole" in card


def test_a_file_that_acts_otherwise_is_not_kept(run, tmp_path, monkeypatch):
    def wrong(deployed, given, out):
        out.write_bytes(b"something")
        return lambda samples: 1 - load_policy(run).act(samples["observation"])

    monkeypatch.setitem(exporting.WRITERS, "pt2", wrong)
    with pytest.raises(UserError, match="gives other actions than the policy, and was not kept"):
        export(load_policy(run), "pt2", tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert command("export", run, "--to", "onnx", "--out", tmp_path / "x.onnx") == 2
    assert "pip install 'dr3-ray[export]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert command("export", run, "--to", "onx", "--out", tmp_path / "x.onnx") == 2
    assert "unknown format 'onx': did you mean 'onnx'?" in capsys.readouterr().err


def test_a_folder_in_the_place_of_the_card_leaves_nothing(run, tmp_path, capsys):
    (tmp_path / "policy.pt.md").mkdir()
    assert command("export", run, "--to", "torchscript", "--out", tmp_path / "policy.pt") == 2
    error = capsys.readouterr().err
    assert f"error: {tmp_path}/policy.pt.md cannot be written (Is a directory): give another --out" in error
    assert [path.name for path in tmp_path.iterdir()] == ["policy.pt.md"]


QUIET = """
import os, sys
from dr3_ray.policies.export import onnx_runtime
before = dict(os.environ)
runtime = onnx_runtime()
assert dict(os.environ) == before
from onnx import TensorProto, helper
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""


def test_its_runtime_leaves_nothing_in_the_home_directory(tmp_path):
    """ONNX Runtime has telemetry, with a database and a number of the machine."""
    here = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    subprocess.run([sys.executable, "-c", QUIET], env=here | {"HOME": str(tmp_path)}, check=True)
    assert not [path for path in tmp_path.rglob("*") if "icrosoft" in str(path)]


def test_operations_are_plain_only_while_it_is_written(run, tmp_path):
    from dr3_ray.networks.precision import may_be_fast

    assert may_be_fast()
    export(load_policy(run), "torchscript", tmp_path / "policy.pt")
    assert may_be_fast()
    assert torch.jit.load(str(tmp_path / "policy.pt"))(torch.zeros(2, 4)).shape == (2,)


@pytest.mark.parametrize("form", WRITERS)
def test_without_room_an_export_is_one_line_and_leaves_nothing(form, tmp_path):
    """PyTorch would end the process once a write of its own fails."""
    policy = untrained(find("DR3-TD3BC", "continuous"), BOX, WIDE)
    with files_up_to(64), pytest.raises(UserError, match=r"policy cannot be written \(.*\): give another --out"):
        export(policy, form, tmp_path / "policy")
    assert not list(tmp_path.iterdir())
