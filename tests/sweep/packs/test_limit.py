"""`pack: auto`: what decides the size of packs, what is measured for it, and that a sweep goes on with it."""

import json
import shutil
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray._private.utils import get_num_cpus, get_system_memory

from dr3_ray.cli.app import main
from dr3_ray.errors import UserError
from dr3_ray.runs.directory import RUN, read_run
from dr3_ray.runs.index import read_index
from dr3_ray.sweep.directory import open_run, spec_of
from dr3_ray.sweep.packs.calibration import choices
from dr3_ray.sweep.packs.limit import largest_packs, planned_limit, sweep_limit, together
from dr3_ray.sweep.packs.packing import pack_members
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.pack_size import BestPack, PerMember, choose
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

TINY = {"options": {"hidden_sizes": [8]}, "environment": "none", "steps": 20, "evaluations": 2, "pack": "auto"}


def choice(enough, seconds, room=1e9, memory=1.0, in_turn=False):
    """Of members whose update takes `seconds(size)` in a pack of that size; with the sizes that were measured."""
    measured = []

    def measure(size):
        measured.append(size)
        return PerMember(seconds(size), memory, in_turn)

    return choose(enough, room, measure), measured


def test_packs_grow_while_a_member_gets_faster_by_a_tenth():
    found, measured = choice(1000, lambda size: 1 + 5 / size)
    assert measured == [1, 4, 16, 64, 256]  # 6, 2.25, 1.31, 1.08, 1.02
    assert (found.size, found.packed.seconds) == (64, 1 + 5 / 64)
    assert found.why == "256 save less than 10% of that"


def test_packs_of_sixteen_share_the_start_of_a_trial_unless_they_are_slower():
    assert choice(1000, lambda size: 1.0)[0].size == 16
    assert choice(1000, lambda size: 1.0 if size < 16 else 1.05)[0].size == 16
    found, measured = choice(1000, lambda size: 1.0 if size < 16 else 1.2)
    assert (found.size, measured, found.why) == (4, [1, 4, 16], "16 are slower")


@pytest.mark.parametrize(("enough", "sizes"), [(1, [1]), (9, [1, 4, 9]), (16, [1, 4, 16])])
def test_no_larger_than_trials_have_members_for(enough, sizes):
    found, measured = choice(enough, lambda size: 1 / size)
    assert (found.size, measured, found.why) == (enough, sizes, "no trial would have more")


def test_no_larger_than_memory_is_there_for():
    found, measured = choice(1000, lambda size: 1 / size, room=70, memory=3)
    assert (found.size, measured) == (23, [1, 4, 16, 23])
    assert found.why == "memory is there for no more"
    assert choice(1000, lambda size: 1 / size, room=1, memory=3)[0].size == 1


def test_members_one_by_one_share_the_start_of_a_trial_alone():
    found, measured = choice(1000, lambda size: 1.0, in_turn=True)
    assert (found.size, measured) == (16, [1])
    assert choice(1000, lambda size: 1.0, room=12, memory=3, in_turn=True)[0].size == 4


@given(enough=st.integers(1, 1000), room=st.floats(0, 1e4), times=st.lists(st.floats(1e-6, 1), min_size=7, max_size=7))
def test_whatever_is_measured_the_choice_is_within_bounds(enough, room, times):
    left = iter(times)
    found, measured = choice(enough, lambda _: next(left), room=room)
    assert 1 <= found.size <= max(1, min(enough, room))
    assert max(measured) <= max(1, min(enough, room))
    assert found.packed.seconds <= 1.1 * found.alone.seconds


def test_memory_of_the_largest_counts_and_the_gain_of_the_most_gaining():
    small, large = PerMember(0.001, 2**20, False), PerMember(0.002, 2**30, True)
    gaining = BestPack(64, "256 save less than 10% of that", small, small._replace(seconds=0.004), 4 * 2.0**30)
    tight = BestPack(2, "memory is there for no more", large, large, 4 * 2.0**30)
    limit, why = together([tight, gaining])
    assert limit == 4
    assert why == (
        "an update of one takes 1 ms in a pack of 64, 4 ms alone (256 save less than 10% of that), "
        "and 1.0 GiB of memory, of which there are 4.0 GiB for a pack"
    )


def test_the_largest_packs_leave_no_trial_without_work(cartpole):
    sweep = SweepSpec(datasets=[cartpole], seeds=3, axes={"batch_size": [16, 32]}, **TINY)
    planned = members(sweep)
    for slots in (1, 2, 5, 100):
        groups = largest_packs(planned.values(), slots)
        assert [{config["batch_size"] for config in group} for group in groups] == [{16}, {32}]
        largest = max(map(len, groups))
        packs = pack_members(planned, largest, slots)
        assert max(len(pack.members) for pack in packs) <= largest
        assert len(packs) % slots == 0 or len(packs) == len(planned)


def test_what_an_update_takes_of_a_member_is_measured(cartpole):
    """DR3-CQL on CartPole with one layer of 8: a network, its gradients, two moments and a target, and activations."""
    sweep = SweepSpec(datasets=[cartpole], coefficients=[0.1], seeds=8, **TINY)
    (found,) = choices([list(members(sweep).values())], cpus=1, gpus=0, slots=2)
    assert 1 <= found.size <= 8
    parameters = 4 * ((4 * 8 + 8) + (8 * 2 + 2))
    batch, hidden = 32 * 4 * 4, 32 * 8 * 4
    for taken in (found.alone, found.packed):
        assert not taken.in_turn
        assert 0 < taken.seconds < 1
        assert 5 * parameters + batch + hidden <= taken.memory < 100 * 2**10
    larger = SweepSpec(datasets=[cartpole], coefficients=[0.1], seeds=1, **TINY | {"options": {"hidden_sizes": [800]}})
    assert choices([list(members(larger).values())], 1, 0, 2)[0].alone.memory > 20 * found.alone.memory
    assert 0 < found.room <= get_system_memory() / 2 / min(2, get_num_cpus())


@pytest.mark.slow
def test_a_sweep_chooses_once_and_says_so(cluster, cartpole, tmp_path, capfd):
    sweep = SweepSpec(datasets=[cartpole], coefficients=[0, 0.1], seeds=3, concurrent=1, out=tmp_path / "run", **TINY)
    assert train_sweep(sweep).statuses == {"finished": 6}
    said = capfd.readouterr().err
    document = read_run(sweep.out)
    limit = document["pack"]["limit"]
    assert document["pack"]["members"] == 6
    assert document["spec"]["pack"] == "auto"
    assert 1 <= limit <= 6
    assert f"pack auto: up to {limit} members; an update of one takes" in said
    assert max(Counter(record["pack"] for record in read_index(sweep.out)).values()) <= limit


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_was_chosen(cluster, cartpole, tmp_path, capfd):
    """Whatever would be measured now: three members, where it would be one or six."""
    sweep = SweepSpec(datasets=[cartpole], coefficients=[0, 0.1], seeds=3, concurrent=1, out=tmp_path / "run", **TINY)
    planned = members(sweep)
    with open_run(sweep, planned, ["x"]):
        pass
    written = read_run(sweep.out) | {"pack": {"limit": 3, "members": 6}}
    (sweep.out / RUN).write_text(json.dumps(written))
    assert planned_limit(sweep, planned, 1, calibrate=True, say=pytest.fail) == 3
    assert train_sweep(spec_of(sweep.out)).statuses == {"finished": 6}
    assert "pack auto" not in capfd.readouterr().err
    assert sorted(Counter(record["pack"] for record in read_index(sweep.out)).values()) == [3, 3]
    assert read_run(sweep.out)["pack"] == {"limit": 3, "members": 6}

    given = SweepSpec(**dict(sweep) | {"pack": 5})
    assert planned_limit(given, planned, 1, calibrate=True, say=pytest.fail) == 5
    grown = SweepSpec(**dict(sweep) | {"seeds": 4})
    said: list[str] = []
    assert 1 <= planned_limit(grown, members(grown), 1, calibrate=True, say=said.append) <= 8
    assert len(said) == 1


def test_packs_that_race_are_no_packs_of_one(cartpole, tmp_path):
    """Also where there is no more than one member for a trial."""
    sweep = SweepSpec(
        datasets=[cartpole], coefficients=[0, 0.1, 1], seeds=1, out=tmp_path, **TINY | {"environment": "auto"},
        halving={"factor": 2, "first": 1},
    )  # fmt: skip
    assert planned_limit(sweep, members(sweep), 100, calibrate=True, say=lambda _: None) == 2


@pytest.mark.slow
def test_what_cannot_be_measured_is_one_line(cluster, cartpole, tmp_path):
    """Data that are gone when a trial's process looks for them."""
    data = shutil.copytree(cartpole, tmp_path / "data")
    sweep = SweepSpec(datasets=[str(data)], seeds=1, out=tmp_path / "run", **TINY)
    planned = members(sweep)
    shutil.rmtree(data)
    sources = {config["data_fingerprint"]: config["dataset"] for config in planned.values()}
    with pytest.raises(UserError, match=r"pack auto could not be measured .* give a number") as error:
        sweep_limit(sweep, planned, sources, 1, lambda _: None)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_room_for_measuring_is_waited_for_as_long_as_for_a_trial(cluster, cartpole, tmp_path):
    """Where a process could not even start in that time."""
    sweep = SweepSpec(datasets=[cartpole], seeds=1, patience=1e-4, out=tmp_path / "run", **TINY)
    planned = members(sweep)
    sources = {config["data_fingerprint"]: config["dataset"] for config in planned.values()}
    with pytest.raises(
        UserError, match=r"not measured within 0\.0001 minutes: make room for a trial, or give a number"
    ):
        sweep_limit(sweep, planned, sources, 1, lambda _: None)


def test_a_dry_run_says_what_it_would_choose(cartpole, tmp_path, capsys):
    asked = ["sweep", "--dataset", cartpole, "--coefficients", "0", "--set", "hidden_sizes=[8]", "--steps", "20"]
    more = ["--evaluations", "2", "--pack", "auto", "--out", str(tmp_path / "run"), "--dry-run"]
    for calibration, said in ((), "pack auto: up to "), (("--no-calibration",), "planned for packs of 16"):
        with pytest.raises(SystemExit) as end:
            main([*asked, *more, *calibration])
        assert not end.value.code
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["autoo", "0", "1.5", 0, 1001, True, 1.5])
def test_other_words_are_one_line(given):
    with pytest.raises(UserError, match=r"pack: a pack has 1 to 1000 members, or auto, not ") as error:
        SweepSpec(datasets=["d"], pack=given)
    assert "\n" not in str(error.value)
    assert SweepSpec(datasets=["d"], pack="7").pack == 7
