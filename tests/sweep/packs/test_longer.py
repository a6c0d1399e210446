"""Finished members train longer: to the bit what training them in one go gives, or a line that says what keeps them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.report.reader import read_tables
from dr3_ray.runs.identity import LATER, member_id
from dr3_ray.runs.index import current, read_index
from dr3_ray.runs.plain import read_plain
from dr3_ray.runs.status import read_status
from dr3_ray.sweep.packs.longer import longer_packs
from dr3_ray.sweep.packs.packing import pack_name
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import PackTrainable
from dr3_ray.training.saved import NAME, PLACE
from tests.crash.untrained import InTurn

TIMES = ["time_s", "updates_per_second", "steps", "evaluations"]
TINY = {"hidden_sizes": [4], "batch_size": 4}


def records(configs: list[dict[str, Any]], size: int, status: str = "finished") -> dict[str, Any]:
    """Members that were trained in packs of so many."""
    found: dict[str, Any] = {}
    for start in range(0, len(configs), size):
        pack = {member_id(config): config for config in configs[start : start + size]}
        found |= {
            member: {"member": member, "status": status, "config": config, "pack": pack_name(pack)}
            for member, config in pack.items()
        }
    return found


def configs(steps: int, evaluations: int, seeds: int = 4, **more: Any) -> list[dict[str, Any]]:
    about = {"algorithm": "DR3-CQL", "dataset": "a", "data_fingerprint": "f", "compile": False} | more
    return [about | {"steps": steps, "evaluations": evaluations, "seed": seed} for seed in range(seeds)]


def by_hash(configs: list[dict[str, Any]]) -> dict[str, Any]:
    return {member_id(each): each for each in configs}


def all_of(old: dict[str, Any]) -> Callable[[], set[str]]:
    """Every pack has a checkpoint."""
    return lambda: {record["pack"] for record in old.values()}


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 3]),
    st.sampled_from([{}, LATER]),
)  # fmt: skip
def test_packs_are_those_that_were_begun_and_evaluations_some_of_theirs(
    size: int, before: int, more: int, seeds: int, apart: int, later: dict[str, Any]
) -> None:
    """Also where the shorter ones are older than some options."""
    old = records(configs(10 * before, before), size)
    new = by_hash(configs(10 * (before + more) * apart, before + more, seeds, **later))
    found, reasons = longer_packs(new, old, all_of(old))
    if before % apart == 0:  # a pack goes on if all its members are wanted
        whole = [start for start in range(0, 4, size) if min(start + size, 4) <= seeds]
        assert sorted(pack.origin for pack in found.values()) == sorted(
            {list(old.values())[start]["pack"] for start in whole}
        )
        for name, pack in found.items():
            olds = [record["config"]["seed"] for record in old.values() if record["pack"] == pack.origin]
            assert [config["seed"] for config in pack.members.values()] == olds and name == pack_name(pack.members)
            assert all(new[member] == config for member, config in pack.members.items()) and pack.made == 10 * before
        anew = seeds - sum(len(pack.members) for pack in found.values())
        told = f"{anew} members begin anew, and not where shorter ones were left: other members of their packs"
        assert [reason.startswith(told) for reason in reasons] == [True] * bool(anew)
    else:
        assert not found
        assert f"every 10 of {10 * before} updates and are to come every {10 * apart} now" in reasons[0]
        assert f"; {(before + more) * apart} evaluations would let them go on" in reasons[0]


@pytest.mark.parametrize(
    ("status", "more", "size", "reason"),
    [
        ("finished", {"compile": True}, 2, "compiled steps are equal up to rounding only"),
        ("cut", {"halving": {"factor": 2}}, 1, "who was cut depended on who came first"),
    ],
)
def test_what_is_not_equal_to_the_bit_begins_anew(status: str, more: dict[str, Any], size: int, reason: str) -> None:
    old = records(configs(20, 2, **more), size, status)
    found = longer_packs(by_hash(configs(40, 4, **more)), old, all_of(old))
    assert not found.packs and [each.partition(": ")[2] for each in found.reasons] == [reason]


@pytest.mark.parametrize(
    ("status", "why"), [("failed", "members had not ended"), ("pending", "members had not ended"), ("diverged", "mem")]
)
def test_other_evaluations_need_members_that_finished(status: str, why: str) -> None:
    old = records(configs(20, 2), 2, status)
    assert longer_packs(by_hash(configs(40, 4)), old, all_of(old)).reasons == []
    found = longer_packs(by_hash(configs(40, 2)), old, all_of(old))
    assert not found.packs and why in found.reasons[0]


def test_members_without_checkpoints_begin_anew_and_it_is_said() -> None:
    old = records(configs(20, 2), 2)
    found = longer_packs(by_hash(configs(40, 4)), old, set)
    assert not found.packs
    assert found.reasons == [
        "4 members begin anew, and not where shorter ones were left: the checkpoints of the shorter ones are not there"
    ]


def test_members_that_were_never_begun_are_nothing_to_speak_of() -> None:
    old = records(configs(20, 2), 2, "pending")
    never = {member: record | {"pack": None} for member, record in old.items()}
    assert longer_packs(by_hash(configs(40, 4)), never, set) == ({}, [])


def test_of_several_lengths_the_longest_counts_however_packs_were_composed() -> None:
    old = records(configs(20, 2), 4) | records(configs(30, 3), 2)
    found = longer_packs(by_hash(configs(40, 4)), old, all_of(old)).packs
    assert len(found) == 2 and {pack.made for pack in found.values()} == {30}


def test_shorter_members_are_shown_until_the_longer_ones_have_ended() -> None:
    short, long = records(configs(20, 2), 2), records(configs(40, 4), 2, "running")
    assert len(current([*short.values(), *long.values()])) == 8
    begun = [record | {"status": "pending"} for record in short.values()]
    for shorter, status in ((begun, "running"), (list(short.values()), "finished"), (list(short.values()), "diverged")):
        longer = [record | {"status": status} for record in long.values()]
        assert current([*shorter, *longer]) == longer
    other = records(configs(40, 3), 2)  # which holds none of their rows
    assert len(current([*short.values(), *other.values()])) == 8


def spec(out: Path, steps: int, evaluations: int, **more: Any) -> SweepSpec:
    about = {"coefficients": [0, 0.1], "seeds": 2, "options": TINY} | more
    return SweepSpec(steps=steps, evaluations=evaluations, environment="none", out=out, **about)


def train(spec: SweepSpec, fails: set[int] = frozenset()) -> dict[str, int]:
    return train_sweep(spec, trials=InTurn(fails, pack=PackTrainable)).statuses


def rows(run: Path, members: set[str]) -> pd.DataFrame:
    table = pd.read_parquet(run / "histories.parquet")
    table = table[table["member"].isin(members)].sort_values(["member", "step"])
    return table.drop(columns=[each for each in TIMES if each in table]).reset_index(drop=True).sort_index(axis=1)


def tensors(run: Path, members: set[str]) -> dict[str, Any]:
    """Everything that training goes on from, by pack: networks, optimisers, targets, generators, counters."""
    found = {}
    for pack in sorted({record["pack"] for record in read_index(run) if record["member"] in members}):
        last = max((run / "checkpoints" / pack).glob("0*"))
        learner = read_plain(last, "algorithm_state")["learner_group"]["learner"]
        found[pack] = (last.name, read_plain(last / PLACE, NAME)["state"], learner["optimizer"])
    return found


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    ours, theirs = (torch.as_tensor(each) if hasattr(each, "dtype") else each for each in (ours, theirs))
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours.nan_to_num(7.5), theirs.nan_to_num(7.5))
    return bool(ours == theirs)


def assert_as_in_one_go(run: Path, whole: Path) -> None:
    members = {record["member"] for record in read_index(whole)}
    pd.testing.assert_frame_equal(rows(run, members), rows(whole, members))
    assert same(tensors(run, members), tensors(whole, members))
    shown, alone = read_tables(run), read_tables(whole)
    assert shown.facets == alone.facets and set(shown.members.index) == members
    assert read_status(run).counts == read_status(whole).counts


BREAKOUT, PENDULUM = "embedded:breakout-replay", "embedded:pendulum-replay"
CASES: dict[str, dict[str, Any]] = {
    "discrete, two algorithms, packs of two": {"datasets": BREAKOUT, "algorithms": ["DR3-REM", "BC"], "pack": 2},
    "actor and critic, normalised, dropout": {
        "datasets": PENDULUM, "algorithms": ["DR3-CQL"],
        "options": TINY | {"normalize_observations": True, "critic_dropout": 0.1, "reward_scaling": "return_range"},
    },
    "members alone": {"datasets": PENDULUM, "algorithms": ["DR3-TD3BC"], "pack": 1, "seeds": 1},
    "a window": {"datasets": PENDULUM, "algorithms": ["DR3-IQL"], "options": TINY | {"shuffle_window": 1000}},
    "a mixture that changes": {
        "algorithms": ["DR3-IQL"],
        "datasets": {"mixture": [
            {"data": f"{PENDULUM}?take=first:0.5", "weight": 0.75, "then": 0.25},
            {"data": f"{PENDULUM}?take=best:0.1", "weight": 0.25, "then": 0.75},
        ], "since": 5},
    },
    "one that diverges": {
        "datasets": BREAKOUT, "coefficients": [0], "axes": {"critic_lr": [1e-4, 1e30]}, "options": TINY,
    },
    "halving, which cuts where the shorter ones ended": {
        "datasets": BREAKOUT, "coefficients": [0, 0.1, 1.0, 3.0], "seeds": 1, "objective": "td_error",
        "halving": {"factor": 2, "first": 1},
    },
}  # fmt: skip


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("case", CASES)
def test_trained_longer_is_trained_in_one_go(case: str, tmp_path: Path, capsys: Any) -> None:
    asked = CASES[case]
    train(spec(tmp_path / "run", 4, 2, **asked))
    train(spec(tmp_path / "run", 8, 4, **asked))
    assert "members go on from where shorter ones were left" in capsys.readouterr().err
    train(spec(tmp_path / "whole", 8, 4, **asked))
    assert "go on from" not in capsys.readouterr().err
    assert_as_in_one_go(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(("kind", "data"), [("discrete", BREAKOUT), ("continuous", PENDULUM)])
def test_so_is_every_algorithm(kind: str, data: str, tmp_path: Path) -> None:
    algorithms = [name for name, kinds in ALGORITHMS.items() if kind in kinds]
    asked = {"datasets": data, "algorithms": algorithms, "coefficients": [0.1], "seeds": 1}
    for out, steps in (("run", 4), ("run", 8), ("whole", 8)):
        train(spec(tmp_path / out, steps, steps // 2, **asked))
    assert_as_in_one_go(tmp_path / "run", tmp_path / "whole")


def test_evaluations_may_be_rarer_and_checkpoints_that_stay_are_taken_along(tmp_path: Path) -> None:
    asked = {"datasets": BREAKOUT, "coefficients": [0.1], "keep_checkpoints": 2}
    for out, steps, evaluations in (("run", 4, 4), ("run", 8, 4), ("whole", 8, 4)):
        train(spec(tmp_path / out, steps, evaluations, **asked))
    assert_as_in_one_go(tmp_path / "run", tmp_path / "whole")
    for pack in {record["pack"] for record in read_index(tmp_path / "whole")}:
        for out in ("run", "whole"):
            assert sorted(int(path.name) for path in (tmp_path / out / "checkpoints" / pack).glob("0*")) == [4, 8]


@pytest.mark.parametrize(("before", "after"), [({2}, set()), (set(), {2}), ({2}, {1})])
def test_it_does_not_matter_what_stops_it(before: set[int], after: set[int], tmp_path: Path) -> None:
    """The shorter ones fail after their first evaluation, or the longer ones after their first, or both."""
    asked = {"datasets": BREAKOUT, "coefficients": [0.1], "seeds": 1, "checkpoint_every": 1, "retries": 0}
    assert train(spec(tmp_path / "run", 4, 2, **asked), before) == {"failed" if before else "finished": 1}
    assert train(spec(tmp_path / "run", 8, 4, **asked), after) == {"failed" if after else "finished": 1}
    assert train(spec(tmp_path / "run", 8, 4, **asked)) == {"finished": 1}
    train(spec(tmp_path / "whole", 8, 4, **asked))
    assert_as_in_one_go(tmp_path / "run", tmp_path / "whole")


def test_without_checkpoints_it_begins_anew_and_ends_the_same(tmp_path: Path, capsys: Any) -> None:
    asked = {"datasets": BREAKOUT, "coefficients": [0.1], "checkpoint_every": 0}
    train(spec(tmp_path / "run", 4, 2, **asked))
    capsys.readouterr()
    train(spec(tmp_path / "run", 8, 4, **asked | {"checkpoint_every": None}))
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "begin anew" in line] == [
        "2 members begin anew, and not where shorter ones were left: the checkpoints of the shorter ones are not there"
    ]
    train(spec(tmp_path / "whole", 8, 4, **asked | {"checkpoint_every": None}))
    assert_as_in_one_go(tmp_path / "run", tmp_path / "whole")


def test_the_history_of_a_run_has_both_commands_and_a_status_knows_what_was_made(tmp_path: Path) -> None:
    asked = {"datasets": BREAKOUT, "coefficients": [0.1], "retries": 0}
    train(spec(tmp_path, 4, 2, **asked))
    assert train(spec(tmp_path, 8, 4, **asked), {1, 2}) == {"failed": 2}
    assert len(json.loads((tmp_path / "run.json").read_text())["history"]) == 2
    status = read_status(tmp_path)
    assert status.counts["finished"] == status.counts["failed"] == 2 and status.planned == 16
    assert "steps" in read_tables(tmp_path).facets
