"""`dr3-ray sweep --dry-run`: what it counts, measures and leaves alone; and the examples of docs/sweeps.md."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from rich.console import Console

from dr3_ray.cli.app import main
from dr3_ray.cli.specfile import read_spec
from dr3_ray.sweep.estimate import SweepEstimate, estimate_sweep, estimate_table
from dr3_ray.sweep.packs.calibration import measure
from dr3_ray.sweep.packs.packing import pack_name
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.progress import size

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "sweep.schema.json"
EXAMPLES = [
    example
    for page in ("sweeps.md", "search.md")
    for example in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def planned(data: str, **values) -> SweepEstimate:
    return estimate_sweep(SweepSpec(**{"datasets": [data], "environment": "none"} | values), calibrate=False)


def test_members_packs_and_why_they_are_split(cartpole, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    estimate = planned(
        cartpole, coefficients=[0, 0.1], seeds=10, axes={"batch_size": [16, 32]}, pack=16, concurrent=1, steps=40,
        evaluations=2,
    )  # fmt: skip
    assert len(estimate.plan.members) == 40
    assert estimate.plan.slots == 1
    assert [kind.about for kind in estimate.kinds] == [
        "DR3-CQL, cartpole, batch_size 16",
        "DR3-CQL, cartpole, batch_size 32",
    ]
    assert [[len(pack.members) for pack in kind.packs] for kind in estimate.kinds] == [[10, 10]] * 2
    assert {kind.why for kind in estimate.kinds} == {"16 a pack at most: 2"}
    assert not os.listdir(tmp_path)


def test_structures_are_told_apart_by_algorithm_and_data_set_alone_where_that_is_enough(cartpole, pendulum):
    estimate = planned(cartpole, datasets=[cartpole, pendulum], algorithms=["DR3-CQL", "BC"], seeds=1, coefficients=[0])
    assert [kind.about for kind in estimate.kinds] == [
        "DR3-CQL, cartpole", "BC, cartpole", "DR3-CQL, pendulum", "BC, pendulum"
    ]  # fmt: skip


def test_members_that_are_done_are_not_planned_again(cartpole, tmp_path):
    sweep = SweepSpec(datasets=[cartpole], environment="none", seeds=2, coefficients=[0, 0.1], out=tmp_path / "run")
    records = [
        {"member": member, "status": status, "config": config, "error": None, "pack": None, "time": 0.0}
        for (member, config), status in zip(
            members(sweep).items(), ["finished", "diverged", "failed", "pending"], strict=True
        )
    ]
    sweep.out.mkdir()
    (sweep.out / "run.json").write_text(json.dumps({"format": 2}))
    (sweep.out / "index.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    before = {path.name: path.stat().st_mtime_ns for path in sweep.out.iterdir()}
    estimate = estimate_sweep(sweep, calibrate=False)
    assert estimate.done == 2
    assert [member for pack in estimate.plan.packs for member in pack.members] == [
        each["member"] for each in records[2:]
    ]
    assert {path.name: path.stat().st_mtime_ns for path in sweep.out.iterdir()} == before


def test_packs_that_were_begun_are_planned_as_they_were(cartpole, tmp_path):
    """As the sweep does: six members that began in packs of three, which a sweep of now would put into one."""
    sweep = SweepSpec(datasets=[cartpole], environment="none", seeds=3, coefficients=[0, 0.1], out=tmp_path / "run")
    every = list(members(sweep).items())
    packs = [dict(every[:3]), dict(every[3:])]
    records = [
        {"member": member, "status": status, "config": config, "error": None, "pack": pack_name(pack), "time": 0.0}
        for pack, status in zip(packs, ["finished", "pending"], strict=True)
        for member, config in pack.items()
    ]
    records[3]["status"] = "diverged"
    sweep.out.mkdir()
    (sweep.out / "run.json").write_text(json.dumps({"format": 2}))
    (sweep.out / "index.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    estimate = estimate_sweep(sweep, calibrate=False)
    assert [pack.members for pack in estimate.plan.packs] == [packs[1]]
    assert [kind.why for kind in estimate.kinds] == ["as they were begun"]
    console = Console(width=300, record=True)
    console.print(estimate_table(estimate))
    shown = console.export_text()
    assert "4 of 6 members were done before, 2 are left" in shown
    assert "1 packs go on from their checkpoints" in shown
    assert f"{2 * sweep.steps:,} updates in all" in shown


def test_what_a_pack_takes_is_counted_from_its_tensors(cartpole):
    """DR3-CQL on CartPole: one hidden layer of 8, two actions, one critic and its target, float32."""
    sweep = SweepSpec(
        datasets=[cartpole], seeds=3, coefficients=[0.1], options={"hidden_sizes": [8]}, steps=40, evaluations=2
    )
    cost = measure(list(members(sweep).values()), cpus=1, gpus=0)
    heads = 2
    floats = 3 * ((4 * 8 + 8) + (8 * heads + heads))
    assert cost.parameters == cost.targets == 4 * floats
    assert cost.optimiser == 2 * cost.parameters
    assert cost.state == 4 * cost.parameters
    assert cost.data == sum(path.stat().st_size for path in Path(cartpole).glob("*.arrow"))
    assert 0 < cost.update < 1
    assert 0 < cost.evaluation < 60
    assert torch.get_num_threads() == 1


def test_time_follows_updates_and_slots(cartpole):
    """Four equal packs: twice the slots take half the time, twice the updates twice."""
    asked = {"seeds": 4, "coefficients": [0.1], "pack": 1, "options": {"hidden_sizes": [8]}, "evaluations": 2}
    one = planned(cartpole, **asked, steps=40, concurrent=1)
    cost = measure(list(one.plan.packs[0].members.values()), cpus=1, gpus=0)._replace(update=0.5, evaluation=2.0)
    kinds = [kind._replace(cost=cost) for kind in one.kinds]
    assert one._replace(kinds=kinds).seconds == 4 * (40 * 0.5 + 2 * 2.0)
    assert one._replace(kinds=kinds, plan=replace(one.plan, slots=2)).seconds == 2 * (40 * 0.5 + 2 * 2.0)
    assert one._replace(kinds=kinds, plan=replace(one.plan, slots=3)).seconds == 2 * (40 * 0.5 + 2 * 2.0)
    assert one._replace(kinds=kinds).storage > 4 * 2 * cost.state


def test_much_evaluation_is_said_with_what_to_do(cartpole, capsys):
    one = planned(cartpole, seeds=4, coefficients=[0.1], pack=2, evaluations=2, steps=40, concurrent=1)
    cost = measure(list(one.plan.packs[0].members.values()), cpus=1, gpus=0)

    def shown(update: float, evaluation: float) -> str:
        kinds = [kind._replace(cost=cost._replace(update=update, evaluation=evaluation)) for kind in one.kinds]
        Console(width=300).print(estimate_table(one._replace(kinds=kinds)))
        return capsys.readouterr().out

    assert "Evaluation is 20% of that. To have less of it: fewer --evaluations" in shown(0.1, 0.5)
    assert "Evaluation is" not in shown(0.1, 0.3)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (5 * 2**40, "5120.0 GiB")]
)
def test_sizes(count, text):
    assert size(count) == text


def test_a_dry_run_says_it_all_and_writes_nothing(cartpole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    sweep = ["sweep", "--dataset", cartpole, "--coefficients", "0,0.1", "--seeds", "2", "--set", "hidden_sizes=[8]"]
    assert run(*sweep, "--steps", "40", "--evaluations", "2", "--dry-run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 members" in shown
    assert "2 configurations with up to 2 seeds" in shown
    for words in (
        "of a pack",
        "optimiser",
        "Room in runs/sweep",
        "Nothing was written",
    ):
        assert words in shown
    assert re.search(r"About \d+:\d\d for 160 updates", shown)
    assert not os.listdir(tmp_path)


def test_the_published_schema_is_current(capsys):
    assert run("schema") == 0
    assert SCHEMA.read_text() == capsys.readouterr().out, "dr3-ray schema > docs/sweep.schema.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0].strip("# "))
def test_the_examples_of_the_page_are_valid_and_have_the_members_they_say(example, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    Path("spec.yaml").write_text(example)
    jsonschema.validate(read_spec(Path("spec.yaml")), json.loads(SCHEMA.read_text()))
    assert run("sweep", "spec.yaml", "--dry-run", "--no-calibration") == 0
    (said,) = re.findall(r"# (\d+ members)", example)
    assert capsys.readouterr().out.lstrip().startswith(said)
    assert os.listdir(tmp_path) == ["spec.yaml"]


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0},
        {"unheard_of": 1},
        {"seeds": ["a"]},
        {"pack": 0},
        {"pack": "autoo"},
        {"coefficients": ["a"]},
        {"axes": {"tau": {"log_uniform": [1], "samples": 1}}},
        {"axes": {"tau": {"grid": [1], "when": {"tau": {"mim": 1}}}}},
    ],
)
def test_the_schema_refuses_mistakes_too(values):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"datasets": ["d"]} | values, json.loads(SCHEMA.read_text()))
