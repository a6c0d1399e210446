"""Members that go on from trained ones: what they inherit, what they are told by, and what is refused at once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dr3_ray import load_dataset, load_policy, load_run
from dr3_ray.errors import UserError
from dr3_ray.policies.export import export
from dr3_ray.report.tables import notes
from dr3_ray.runs.identity import configuration, member_id
from dr3_ray.runs.index import read_index
from dr3_ray.runs.plain import read_plain
from dr3_ray.sweep.children import children
from dr3_ray.sweep.directory import axes, resumed, spec_of
from dr3_ray.sweep.estimate import estimate_sweep
from dr3_ray.sweep.parents import find_parents
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trained import trained_networks
from dr3_ray.sweep.trials.trainable import PackTrainable
from dr3_ray.training.saved import METADATA, NAME, PLACE, STATE
from tests.crash.untrained import InTurn

BREAKOUT, PENDULUM = "embedded:breakout-replay", "embedded:pendulum-replay"
TINY = {"hidden_sizes": [4], "batch_size": 4, "normalize_observations": True, "reward_scaling": "return_range"}
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def train(fails: set[int] = frozenset(), **asked: Any) -> Path:
    spec = SweepSpec(**{"steps": 4, "evaluations": 2, "environment": "none"} | asked)
    return train_sweep(spec, trials=InTurn(fails, pack=PackTrainable)).path


def planned(out: Path, **asked: Any) -> dict[str, dict[str, Any]]:
    spec = SweepSpec(**{"steps": 4, "evaluations": 2, "environment": "none", "out": out / "planned"} | asked)
    return children(spec, find_parents(spec))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two coefficients with two seeds, actor and critic."""
    out = tmp_path_factory.mktemp("parents") / "run"
    return train(
        datasets=PENDULUM, algorithms="DR3-CQL", coefficients=[0, 0.1], seeds=2, options=TINY | {"bc_steps": 2}, out=out
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another algorithm on data of other spaces, with a checkpoint in the middle."""
    out = tmp_path_factory.mktemp("parents") / "images"
    asked = {"datasets": BREAKOUT, "coefficients": [0.1], "seeds": 1, "options": {"hidden_sizes": [4], "batch_size": 4}}
    return train(out=out, keep_checkpoints=2, **asked)


def weights(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The parameters and statistics of each member, by its hash."""
    found = {}
    for trained, members in trained_networks(run):
        state = trained.networks.state_dict()
        for row, member in enumerate(members):
            found[member] = {name: values[row] if "." in name else values for name, values in state.items()}
    return found


def test_all_that_is_not_given_is_the_parents(run: Path, tmp_path: Path) -> None:
    there = {record["member"]: record["config"] for record in read_index(run)}
    found = planned(tmp_path, parents=[run])
    assert len(found) == 4
    for child in found.values():
        parent, _, updates = child["parent"].partition("@")
        old = there[parent]
        own = {"parent", "parent_updates", "steps", "evaluations", "bc_steps", "parent_bc_steps"}
        assert {name: child[name] for name in child if name not in own} == {
            name: old[name] for name in old if name not in own
        }
        assert updates == "4" and child["parent_updates"] == 4
        assert (child["bc_steps"], child["parent_bc_steps"]) == (0, 2)  # the first steps are over
        assert member_id(child) != parent


def test_what_is_given_makes_children_and_is_told_of_their_parents(run: Path, tmp_path: Path) -> None:
    found = planned(
        tmp_path, parents=[run], coefficients=[0.1, 0.2], axes={"critic_lr": [1e-4, 1e-3]}, options={"bc_steps": 1}
    )
    assert len(found) == 4 * 2 * 2
    assert {child["bc_steps"] for child in found.values()} == {1}
    told = {(child.get("parent_dr3_coeff"), child["dr3_coeff"]) for child in found.values()}
    assert told == {(0.0, 0.1), (0.0, 0.2), (None, 0.1), (0.1, 0.2)}
    assert {"parent_dr3_coeff", "critic_lr"} <= set(axes(found.values())) and "parent" not in axes(found.values())
    seeds = {}  # seeds of one configuration have parents of one configuration, a seed each
    for child in found.values():
        seeds.setdefault(configuration(child), []).append(child["seed"])
    assert all(sorted(each) == [0, 1] for each in seeds.values())


def test_seeds_that_are_given_go_on_from_every_parent(run: Path, tmp_path: Path) -> None:
    member = read_index(run)[0]["member"]
    found = planned(tmp_path, parents=[f"{run}:{member[:6]}"], seeds=[0, 7, 8])
    assert sorted((child["seed"], child.get("parent_seed")) for child in found.values()) == [(0, None), (7, 0), (8, 0)]
    assert {child["parent"] for child in found.values()} == {f"{member}@4"}


def test_children_begin_where_their_parents_ended_with_statistics_of_their_data(run: Path, tmp_path: Path) -> None:
    other = f"{PENDULUM}?take=best:0.3"
    still = dict.fromkeys(("critic_lr", "actor_lr", "temperature_lr", "tau"), 0.0)
    out = train(parents=[run], datasets=other, options=still, out=tmp_path / "still")
    ours, theirs = weights(out), weights(run)
    for record in read_index(out):
        parent = theirs[record["config"]["parent"].partition("@")[0]]
        assert record["status"] == "finished" and record["config"]["statistics"] == load_dataset(PENDULUM).fingerprint
        for name, values in ours[record["member"]].items():
            assert torch.equal(values, parent[name]), name
    ranges = {trained.return_range for each in (run, out) for trained, _ in trained_networks(each)}
    assert len(ranges) == 1  # Q stays in its unit
    moments = []
    for each in (run, out):  # Adam's, which go on
        (pack,) = {record["pack"] for record in read_index(each) if record["config"]["dr3_coeff"] == 0.1}
        last = max((each / "checkpoints" / pack).glob("0*"))
        moments.append(read_plain(last, STATE)["learner_group"]["learner"]["optimizer"]["population"])
    assert (moments[1]["adam"]["critic"]["steps"] == moments[0]["adam"]["critic"]["steps"] + 4).all()
    assert moments[1]["step"] == 4


def test_a_child_trains_as_its_population_would_and_draws_batches_of_its_own(images: Path, tmp_path: Path) -> None:
    out = train(parents=[images], out=tmp_path / "on")
    ours, theirs = weights(out), weights(images)
    assert not any(torch.equal(ours[child["member"]]["critic.head.weight"], each["critic.head.weight"])
                   for child in read_index(out) for each in theirs.values())  # fmt: skip
    first, *_ = read_index(out)
    losses = pd.read_parquet(out / "histories.parquet")["loss_critic"], pd.read_parquet(images / "histories.parquet")
    assert not set(losses[0]) & set(losses[1]["loss_critic"])
    again = train(parents=[images], out=tmp_path / "again")  # deterministic
    assert all(torch.equal(values, weights(again)[first["member"]][name]) for name, values in
               ours[first["member"]].items())  # fmt: skip


def test_a_checkpoint_that_stayed_a_bare_one_and_a_member_name_the_same_parents(images: Path, tmp_path: Path) -> None:
    (record,) = read_index(images)
    folder = images / "checkpoints" / record["pack"]
    by_hash = planned(tmp_path, parents=[f"{images}:{record['member']}"])
    bare = planned(tmp_path, parents=[f"{folder / '0000000004'}:0"])
    assert by_hash.keys() == bare.keys() == planned(tmp_path, parents=[images]).keys()
    (middle,) = planned(tmp_path, parents=[f"{images}:{record['member']}@2"]).values()
    assert middle["parent"] == f"{record['member']}@2" and middle["parent_updates"] == 2
    for name, parent in (("middle", f"{images}:{record['member']}@2"), ("bare", str(folder / "0000000004"))):
        out = train(parents=[parent], out=tmp_path / name)
        assert [each["status"] for each in read_index(out)] == ["finished"]


def test_it_goes_on_after_a_failure_without_the_run_of_its_parents_and_longer(images: Path, tmp_path: Path) -> None:
    (copy,) = [shutil.copytree(images, tmp_path / "parents")]
    asked = {"parents": [copy], "checkpoint_every": 1, "retries": 0}
    out = train({2}, out=tmp_path / "run", **asked)
    assert [each["status"] for each in read_index(out)] == ["failed"]
    shutil.rmtree(copy)
    spec = resumed(str(out))
    assert spec.inherits("datasets") and spec.inherits("coefficients") and spec == spec_of(out)
    train_sweep(spec, trials=InTurn(pack=PackTrainable))
    train_sweep(resumed(str(out), 8), trials=InTurn(pack=PackTrainable))
    whole = train(out=tmp_path / "whole", parents=[images], steps=8, evaluations=4)
    (longer,) = read_index(whole)
    assert longer["member"] in weights(out)
    for name, values in weights(whole)[longer["member"]].items():
        assert torch.equal(values, weights(out)[longer["member"]][name])


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("lost", [0, 1, "half"])
def test_an_end_that_was_lost_or_damaged_is_taken_from_its_parent_again(
    images: Path, tmp_path: Path, lost: int | str, bare: bool
) -> None:
    parents = shutil.copytree(images, tmp_path / "parents")
    (pack,) = {record["pack"] for record in read_index(parents)}
    asked = f"{parents}/checkpoints/{pack}/0000000004:0" if bare else str(parents)
    out = train({1}, out=tmp_path / "run", parents=[asked], retries=0)
    (end,) = out.glob("checkpoints/parent-*/0*")
    files = sorted(end.iterdir())
    if lost == "half":
        files[-1].write_bytes(files[-1].read_bytes()[:-20])
    else:
        files[int(lost)].unlink()
    moved = parents.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"parents.* is gone, and so is what was copied from it: bring it back, or"):
        train_sweep(resumed(str(out)), trials=InTurn(pack=PackTrainable))
    moved.rename(parents)
    train_sweep(resumed(str(out)), trials=InTurn(pack=PackTrainable))
    assert [record["status"] for record in read_index(out)] == ["finished"]
    whole = train(out=tmp_path / "whole", parents=[asked])
    for member, networks in weights(whole).items():
        assert all(torch.equal(values, weights(out)[member][name]) for name, values in networks.items())


def test_a_grandchild_is_told_from_others_by_all_before_it(run: Path, tmp_path: Path) -> None:
    out = train(parents=[run], coefficients=[0.2], out=tmp_path / "on")
    found = planned(tmp_path, parents=[out], coefficients=[0.3])
    assert {child["parent_parent_dr3_coeff"] for child in found.values()} == {0.0, 0.1}
    assert {(child["parent_dr3_coeff"], child["dr3_coeff"]) for child in found.values()} == {(0.2, 0.3)}
    assert len(found) == 4 and all(child["parent"].partition("@")[0] in weights(out) for child in found.values())


def test_tables_cards_and_python_name_the_parents(run: Path, tmp_path: Path) -> None:
    out = train(parents=[run], coefficients=[0.2], datasets=f"{PENDULUM}?take=best:0.3", out=tmp_path / "on")
    sweep = load_run(out)
    parents = {f"{record['member']}@4" for record in read_index(run)}
    assert set(sweep.members["parent"]) == parents and set(load_run(run).members["parent"]) == {""}
    assert set(sweep.summary["parent_dr3_coeff"]) == {"0.0", "0.1"}  # a row for each kind of parent
    assert set(sweep.summary["members"]) == {2}
    assert any(note.startswith("4 of 4 runs go on from 4 trained ones (") for note in notes(sweep._run, sweep.summary))
    columns = pd.read_parquet(out / "histories.parquet").dtypes
    assert columns["parent_dr3_coeff"] == "float64"
    member = sweep.members.index[0]
    card = export(load_policy(out, member), "torchscript", tmp_path / "policy.pt").read_text()
    assert (
        f"Member {sweep.members.loc[member, 'parent'][:16]} after 4 updates on pendulum-replay; then 4 updates" in card
    )
    plan = estimate_sweep(SweepSpec(parents=[run], steps=4, evaluations=2, out=tmp_path / "new"), calibrate=False)
    assert len(plan.plan.members) == 4 and not (tmp_path / "new").exists()


def test_parents_that_diverged_or_have_not_ended_are_left_out_or_refused(tmp_path: Path, capsys: Any) -> None:
    options = {"hidden_sizes": [4], "batch_size": 4}
    lost = train(
        datasets=BREAKOUT, coefficients=[0], seeds=1, axes={"critic_lr": [1e-4, 1e30]}, options=options,
        out=tmp_path / "run", keep_checkpoints=2,
    )  # fmt: skip
    statuses = {record["status"]: record["member"] for record in read_index(lost)}
    train(parents=[lost], out=tmp_path / "on")
    assert f"1 of 2 members of {lost} have not finished, and are left out" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"is diverged: go on from one that has finished, or from a checkpoint that st"):
        planned(tmp_path, parents=[f"{lost}:{statuses['diverged']}"])
    with pytest.raises(UserError, match=r"has diverged, its parameters are not finite: leave it out"):
        train(parents=[f"{lost}:{statuses['diverged']}@2"], out=tmp_path / "diverged")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "other spaces": (
        {"datasets": BREAKOUT},
        r"was trained on .* and .*, and breakout-replay has .*: go on with data of",
    ),
    "another network": (
        {"options": {"hidden_sizes": [8]}},
        r"have another form \(hidden_sizes\): leave that as it was",
    ),
    "another normalisation": (
        {"options": {"normalize_observations": False}},
        "was trained with normalize_observations t",
    ),
    "an unknown option": ({"options": {"hiden_sizes": [8]}}, "did you mean 'hidden_sizes'"),
    "no such axis": ({"axes": {"double_q": [True, False]}}, "has no option 'double_q'"),
    "all is excluded": ({"exclude": [{"algorithm": "DR3-CQL"}]}, "exclude leaves out all of them"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_a_line_before_anything_is_written(case: str, run: Path, tmp_path: Path) -> None:
    asked, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as error:
        train(parents=[run], out=tmp_path / "new", **asked)
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithms": ["BC"]}, "algorithms: members that go on from others have their configurations"),
        ({"budget": 3}, "budget: members that go on"),
        ({"search": {"method": "random", "trials": 2}}, "search: members that go on"),
        ({"from": ["x"]}, "from and parents are the same"),
        ({"parents": []}, "datasets: it is missing"),
    ],
)
def test_what_parents_bring_is_not_asked_for(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        SweepSpec(**{"parents": [tmp_path]} | given)


def test_places_without_parents_are_told(run: Path, images: Path, tmp_path: Path) -> None:
    (record,), pack = read_index(images), read_index(images)[0]["pack"]
    copy = shutil.copytree(images, tmp_path / "copy")
    last = copy / "checkpoints" / pack / "0000000004"
    for parent, message in {
        str(tmp_path / "nothing"): "is neither a run directory nor a checkpoint",
        f"file://{images}?x=1": r"has a \?, which ends a path in a URI",
        f"{images}:ffff": "0 members of .* have a hash that begins with 'ffff'",
        f"{images}:{record['member']}@3": "has no checkpoint after 3 updates: there are 2, 4; `--checkpoints keep=N`",
        f"{last}:7": "has 1 members: give a place from 0 to 0 after the colon",
    }.items():
        with pytest.raises(UserError, match=message):
            planned(tmp_path, parents=[parent])
    with pytest.raises(UserError, match="go on in another run: give another --out, or --resume for more steps"):
        train(parents=[images], out=images)
    (last / PLACE / f"{NAME}.json").rename(last / PLACE / f"{NAME}.pkl")  # as version 0.1 wrote it
    with pytest.raises(UserError, match=r"is damaged \(.*whole is only that after 2 updates\): go on from another one"):
        planned(tmp_path, parents=[copy])
    (last / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"is damaged, or of version 0\.1, which is a pickle and is not opened here"):
        planned(tmp_path, parents=[last])
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(
        UserError, match=r"has no checkpoint of 1 of the 1 members to go on from, in .*: bring them by `dr"
    ):
        planned(tmp_path, parents=[copy])
    index = [json.loads(line) for line in (copy / "index.jsonl").read_text().splitlines()]
    (copy / "index.jsonl").write_text(json.dumps(index[0]) + "\n")
    with pytest.raises(UserError, match=r"no member of .* has finished: there is nothing to go on from yet"):
        planned(tmp_path, parents=[copy])
    assert not (tmp_path / "planned").exists()


def test_data_that_change_or_have_changed_have_to_be_named(images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "copy")
    text = (copy / "index.jsonl").read_text()
    for old, new, message in (
        (BREAKOUT, f"{BREAKOUT}?take=best:0.5", "holds other data than parent .* was trained on: name them again"),
        (
            BREAKOUT,
            f"mix:{BREAKOUT}=1:0.5,{PENDULUM}=0:0.5,since=3",
            "change at an update, .*: name what to go on with",
        ),
    ):
        (copy / "index.jsonl").write_text(text.replace(json.dumps(old), json.dumps(new)))
        with pytest.raises(UserError, match=message):
            planned(tmp_path, parents=[copy])
        assert len(planned(tmp_path, parents=[copy], datasets=BREAKOUT)) == 1


def test_first_steps_in_whose_middle_a_parent_is_have_to_be_given(images: Path, tmp_path: Path) -> None:
    asked = {"datasets": BREAKOUT, "coefficients": [0.1], "seeds": 1}
    short = train(options={"hidden_sizes": [4], "batch_size": 4, "dr3_warmup_steps": 9}, out=tmp_path / "run", **asked)
    with pytest.raises(UserError, match=r"is in its first steps still \(dr3_warmup_steps 9\)"):
        planned(tmp_path, parents=[short])
    (child,) = planned(tmp_path, parents=[short], options={"dr3_warmup_steps": 5}).values()
    assert child["dr3_warmup_steps"] == 5 and child["parent_dr3_warmup_steps"] == 9


def test_the_files_of_a_checkpoint_are_called_as_rllib_calls_them() -> None:
    from ray.rllib.algorithms.algorithm import Algorithm

    assert (Algorithm.STATE_FILE_NAME, Algorithm.METADATA_FILE_NAME) == (STATE, METADATA)


def test_what_is_damaged_of_a_run_or_a_checkpoint_is_a_line(images: Path, tmp_path: Path) -> None:
    (record,) = read_index(images)
    parent = f"{images}:{record['member']}"
    out = train(parents=[parent], out=tmp_path / "run", steps=2, evaluations=1)
    document = json.loads((out / "run.json").read_text())
    for damaged in ({}, {"members": {"a": 1}, "kinds": {}}, {"members": [], "kinds": {"x": "{"}}):  # is looked up again
        (out / "run.json").write_text(json.dumps(document | {"parents": damaged}))
        assert [each.config for each in find_parents(resumed(str(out)))] == [record["config"]]
    copy = shutil.copytree(images, tmp_path / "copy")
    index = (copy / "index.jsonl").read_text()
    (copy / "index.jsonl").write_text(index.replace('"seed": 0, ', "", 1).replace('"seed": 0', '"other": 0', 1))
    with pytest.raises(UserError, match=r"is damaged at \w+ \(.*seed.*\): leave it out"):
        planned(tmp_path, parents=[copy])
    bare = copy / "checkpoints" / record["pack"] / "0000000004"
    (bare / "manifest.json").unlink()
    for name, content in ((METADATA, "{}"), (f"{STATE}.json", "7"), (f"{PLACE}/{NAME}.json", '{"dict": {}}')):
        kept = (bare / name).read_text()
        (bare / name).write_text(content)
        with pytest.raises(UserError, match=r"is damaged \(.*\): go on from another one") as error:
            planned(tmp_path, parents=[bare])
        assert "\n" not in str(error.value)
        (bare / name).write_text(kept)
    (bare / f"{STATE}.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        train(parents=[bare], out=tmp_path / "bare")


def test_a_categorical_critic_keeps_the_range_that_its_weights_are_used_to_unless_it_is_given_one(tmp_path: Path):
    options = {"hidden_sizes": [4], "batch_size": 4, "critic_head": "hl_gauss", "bins": 5}
    parents = train(
        datasets=PENDULUM, algorithms="DR3-IQL", seeds=1, coefficients=[0], options=options, out=tmp_path / "a"
    )
    other = f"{PENDULUM}?take=best:0.3"
    kept = train(parents=[parents], datasets=other, out=tmp_path / "kept")
    given = train(parents=[parents], datasets=other, options={"v_min": -9.0, "v_max": 1.0}, out=tmp_path / "given")
    networks = [next(iter(trained_networks(each)))[0].networks for each in (parents, kept, given)]
    there, here, told = (each.critic.coding.range for each in networks)
    assert torch.equal(here, there) and told.tolist() == [[-9.0, 1.0]]
    returns = load_dataset(PENDULUM).gather(torch.arange(1000), ("monte_carlo_returns",))["monte_carlo_returns"]
    assert there[0, 0] < returns.min() < returns.max() < there[0, 1]
    (record,) = read_index(kept)
    assert record["config"]["statistics"] == load_dataset(PENDULUM).fingerprint
    policy = load_policy(kept)
    observation = policy.observation_space.sample()
    assert there[0, 0] <= policy.q(observation, policy.act(observation)) <= there[0, 1]
