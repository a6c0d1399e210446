"""Finished members train longer: to the bit what training them in one go gives, or a line that says what keeps them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.runs.identity import member_id
from dr3_ray.sweep.packs.longer import longer_packs, shorter_before
from dr3_ray.sweep.packs.packing import pack_name
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec

TIMES = ["member", "time_s", "updates_per_second", "steps", "evaluations"]


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


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2]))
def test_packs_are_those_that_ended_and_evaluations_as_far_apart(
    size: int, before: int, more: int, seeds: int, apart: int
) -> None:
    old = records(configs(10 * before, before), size)
    new = {member_id(each): each for each in configs(10 * (before + more) * apart, before + more, seeds)}
    found = longer_packs(new, old)
    packs = {record["pack"] for record in old.values()}
    if apart == 1:  # a pack goes on if all its members are wanted
        whole = [start for start in range(0, 4, size) if min(start + size, 4) <= seeds]
        assert sorted(pack.origin for pack in found.values()) == sorted(
            {list(old.values())[start]["pack"] for start in whole}
        )
        for name, pack in found.items():
            olds = [record["config"]["seed"] for record in old.values() if record["pack"] == pack.origin]
            assert [config["seed"] for config in pack.members.values()] == olds and name == pack_name(pack.members)
            assert pack.origin in packs and all(new[member] == config for member, config in pack.members.items())
        assert not shorter_before(new, old)
    else:
        assert not found
        assert f"every 10 updates and are to come every {10 * apart} now" in shorter_before(new, old)


@pytest.mark.parametrize(
    ("status", "more"), [("running", {}), ("failed", {}), ("cut", {}), ("finished", {"compile": True})]
)
def test_what_did_not_end_or_is_not_equal_to_the_bit_begins_anew(status: str, more: dict[str, Any]) -> None:
    old = records(configs(20, 2, **more), 2, status)
    new = {member_id(each): each for each in configs(40, 4, **more)}
    assert not longer_packs(new, old) and not shorter_before(new, old)


def test_of_several_lengths_the_longest_counts() -> None:
    old = records(configs(20, 2), 2) | records(configs(30, 3), 2)
    new = {member_id(each): each for each in configs(40, 4)}
    assert {old[member]["config"]["steps"] for member in old if old[member]["pack"] in {
        pack.origin for pack in longer_packs(new, old).values()
    }} == {30}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pack", [16, 1])
def test_trained_longer_is_trained_in_one_go(cartpole: str, tmp_path: Path, pack: int, capsys: Any) -> None:
    def spec(out: str, steps: int, evaluations: int) -> SweepSpec:
        return SweepSpec(
            datasets=[cartpole], algorithms=["DR3-CQL", "BC"], coefficients=[0, 0.1], seeds=2, steps=steps,
            evaluations=evaluations, evaluation_episodes=2, pack=pack, out=tmp_path / out,
            options={"hidden_sizes": [8], "batch_size": 8},
        )  # fmt: skip

    assert train_sweep(spec("longer", 20, 2)).exit_code == 0
    assert train_sweep(spec("longer", 40, 4)).exit_code == 0
    assert "6 members go on from where shorter ones have ended" in capsys.readouterr().err
    assert train_sweep(spec("whole", 40, 4)).exit_code == 0
    assert "go on from" not in capsys.readouterr().err

    def rows(out: str) -> pd.DataFrame:
        table = pd.read_parquet(tmp_path / out / "histories.parquet")
        table = table[table["member"].isin(whole)]
        return table.sort_values(["member", "step"]).drop(columns=[each for each in TIMES[1:] if each in table])

    whole = set(pd.read_parquet(tmp_path / "whole" / "histories.parquet")["member"])
    pd.testing.assert_frame_equal(rows("longer").reset_index(drop=True), rows("whole").reset_index(drop=True))
