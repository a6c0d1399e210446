import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dr3_ray.data import Provenance, ShardWriter, SpaceSpec, episode_columns

GAMMA = 0.9


@pytest.fixture(scope="session")
def _zygote():
    command = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def cli(_zygote, tmp_path, tmp_path_factory):
    """The command line in a process of its own: cli("info", ...) is `dr3-ray data info …`."""

    output = tmp_path_factory.mktemp("output")

    def run(*args, **env):
        request = {
            "args": ["data", *map(str, args)],
            "env": {"MINARI_DATASETS_PATH": os.environ.get("MINARI_DATASETS_PATH", str(tmp_path / "minari"))} | env,
            "stdout": str(output / "stdout"),
            "stderr": str(output / "stderr"),
        }
        _zygote.stdin.write(json.dumps(request) + "\n")
        _zygote.stdin.flush()
        code = int(_zygote.stdout.readline())
        return SimpleNamespace(returncode=code, **{name: (output / name).read_text() for name in ("stdout", "stderr")})

    return run


@pytest.fixture
def refused(cli):
    """The one line with which the command line refuses; it says what to do after a colon, semicolon or bracket."""

    def run(*args, **env):
        result = cli(*args, **env)
        assert result.returncode == 2, result
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
        assert not result.stdout and "Traceback" not in result.stderr
        return result.stderr.strip()

    return run


@pytest.fixture
def minari_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


OBSERVATIONS = {
    "float32": SpaceSpec.box(-np.inf, np.inf, (3,)),
    "uint8": SpaceSpec.box(0, 255, (2, 5), "uint8"),
    "bool": SpaceSpec.box(0, 1, (3, 3, 2), "bool"),
}
OBSERVATIONS["dict"] = SpaceSpec(kind="dict", spaces=dict(OBSERVATIONS))
ACTIONS = {"box": SpaceSpec.box([-2, 0], [2, 1], (2,)), "discrete": SpaceSpec.discrete(4)}


def make_episode(rng, observation_space, action_space, episode_id, steps, terminated, gamma=GAMMA):
    def observe(space):
        if space.spaces:
            return {name: observe(part) for name, part in space.spaces.items()}
        shape = (steps + 1, *space.shape)
        return {
            "float32": lambda: rng.normal(size=shape).astype(np.float32),
            "uint8": lambda: rng.integers(0, 256, shape, np.uint8),
            "bool": lambda: rng.random(shape) < 0.5,
        }[space.dtype]()

    actions = (
        rng.uniform(-1, 1, (steps, *action_space.shape)).astype(np.float32)
        if action_space.kind == "box"
        else rng.integers(0, action_space.n, steps)
    )
    return episode_columns(
        observe(observation_space),
        actions,
        rng.normal(size=steps).astype(np.float32),
        terminated=terminated,
        truncated=not terminated,
        episode_id=episode_id,
        gamma=gamma,
    )


@pytest.fixture
def make_dataset(tmp_path):
    """Writes a data set and returns its path and, column by column, all rows that went into it."""

    def make(
        name="data", lengths=(3, 1, 5, 2), observation="float32", action="box", rows_per_shard=4, keep=None, seed=0
    ):
        rng = np.random.default_rng(seed)
        about = {
            "observation_space": OBSERVATIONS[observation],
            "action_space": ACTIONS[action],
            "gamma": GAMMA,
            "name": name,
            "provenance": Provenance(source="test"),
        }
        written = []
        with ShardWriter(tmp_path / name, rows_per_shard=rows_per_shard, **about) as writer:
            for index, steps in enumerate(lengths):
                columns = make_episode(
                    rng, about["observation_space"], about["action_space"], index, steps, terminated=index % 2 == 0
                )
                mask = np.ones(steps, bool) if keep is None else rng.random(steps) < keep
                writer.write(columns, None if keep is None else mask)
                written.append({key: values[mask] for key, values in columns.items()})
        return tmp_path / name, {key: np.concatenate([part[key] for part in written]) for key in written[0]}

    return make
