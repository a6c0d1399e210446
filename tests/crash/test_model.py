"""Any sweep, whatever happens to it and in whatever order, ends as the one that was left alone.

A model in the sense of Hypothesis: it draws a sweep and a sequence of events, and after each of them the run directory
can be read. In the end the sweep is resumed until it is over: every member is there once, none is lost, and rows and
parameters are those of the undisturbed run. Where a resume is refused, it is in one line that says what to do, which
then is done.
"""

import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as fixed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dr3_ray.runs.digests import MANIFEST
from dr3_ray.runs.histories import HISTORIES, read_histories
from dr3_ray.runs.identity import LENGTH
from dr3_ray.runs.index import FINAL, INDEX, current, read_index
from dr3_ray.runs.lock import is_locked
from dr3_ray.runs.results import MEMBERS
from dr3_ray.runs.storage import FOLDER
from dr3_ray.sweep.trials.trainable import kept_at
from tests.crash.replay import LOSSES, Disk, by_chance
from tests.crash.shim import read_journal, watched
from tests.crash.untrained import STATE
from tests.crash.zygote import Ended, Zygote

Spec = dict[str, Any]

DISCRETE, CONTINUOUS = "embedded:breakout-replay", "embedded:pendulum-replay"
MIXED = f"mix:{CONTINUOUS}?take=first:0.2=1,{CONTINUOUS}=3"
ALGORITHMS = {
    DISCRETE: ("DR3-CQL", "DR3-IQL", "DR3-DQN", "DR3-QRDQN", "DR3-MC", "BC"),
    CONTINUOUS: ("DR3-CQL", "DR3-IQL", "DR3-TD3BC", "DR3-MC", "BC"),
    MIXED: ("DR3-CQL", "DR3-IQL", "BC"),
}
PARENT = {  # of sweeps that go on from trained members
    **{
        "datasets": [CONTINUOUS],
        "algorithms": ["DR3-IQL"],
        "coefficients": [0, 0.1],
        "seeds": 1,
        "environment": "none",
    },
    **{"steps": 2, "evaluations": 1, "options": {"hidden_sizes": [4], "batch_size": 4}},
}
STEPS = 10  # of a member between two evaluations
CRASHES = os.environ.get("DR3_RAY_CRASHES")
PARTS, EVENTS = 4, 4
WRITES = st.integers(1, 120)  # of a driver; a small sweep makes some 100
NOT_COMPARED = ("time_s", "updates_per_second")
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 130}


@st.composite
def sweeps(draw: st.DrawFn) -> Spec:
    """Fields of a specification."""
    datasets = draw(st.sampled_from([[DISCRETE], [CONTINUOUS], [DISCRETE, CONTINUOUS], [MIXED, CONTINUOUS], [MIXED]]))
    possible = [name for name in ALGORITHMS[datasets[0]] if all(name in ALGORITHMS[each] for each in datasets)]
    algorithms = draw(st.lists(st.sampled_from(possible), min_size=1, max_size=3, unique=True))
    evaluations = draw(st.integers(1, 4))
    spec: Spec = {
        "datasets": datasets,
        "algorithms": algorithms,
        "coefficients": draw(st.sampled_from([[0], [0, 0.1], [0, 0.03, 0.3]])),
        "seeds": draw(st.integers(1, 2)),
        "steps": evaluations * STEPS,
        "evaluations": evaluations,
        "environment": "none",
        "pack": draw(st.integers(1, 4)),
        "retries": draw(st.integers(0, 1)),
        "checkpoint_every": draw(st.sampled_from([0, 1, 1, 2, None])),
        "axes": draw(st.sampled_from([{}, {}, {"batch_size": [8, 16]}, {"shuffle_window": [0, 500]}])),
    }
    if spec["checkpoint_every"] != 0:
        spec["keep_checkpoints"] = draw(st.integers(1, evaluations))
    if datasets == [CONTINUOUS] and draw(st.booleans()):
        del spec["algorithms"]
        return spec | {"parents": []}  # whose place is known where it is trained
    if "BC" in algorithms or draw(st.booleans()):
        return spec
    spec["objective"] = [{"metric": "td_error", "mode": "min"}]
    match draw(st.sampled_from(["none", "halving", "search"])):
        case "halving" if evaluations > 1:
            spec |= {"halving": {"factor": 2, "first": 1}, "pack": 4}
        case "search":
            spec["search"] = {"method": draw(st.sampled_from(["random", "tpe"])), "trials": draw(st.integers(1, 3))}
    return spec


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote(ALGORITHMS) as started, tempfile.TemporaryDirectory(prefix="parent-") as place:
        Crashes.parent = f"{place}/parent"
        ended = started.run(do="train", spec=PARENT | {"out": Crashes.parent}, cwd=place)
        assert ended.code == 0, ended
        yield started


Outcome = tuple[dict[str, str], list[str], dict[str, str]]


def outcome(run: Path, checkpoints: Path, stay: Collection[int] = ()) -> Outcome:
    """Members by status, rows but for what they took, and every member's parameters where a checkpoint has them.

    Those of the last one, and of those after the updates that `stay`. A member ends once, and once more for each time
    that its rows were lost with nothing to bring them back. One that a longer one has taken up is not there.
    """
    records = current(read_index(run))
    names = {record["member"] for record in records}
    ends, lost = Counter[str](), Counter[str]()
    for line in map(json.loads, (run / INDEX).read_text().splitlines()):
        ends[line["member"]] += line["status"] in FINAL
        lost[line["member"]] += line["error"] == "its rows were lost"
    assert all(count <= 1 + lost[member] for member, count in ends.items()), "a member has ended twice"
    rows = read_histories(run).to_pylist() if (run / HISTORIES).exists() else []
    rows = [row for row in rows if row["member"] in names]
    keys = [(row["member"], row["step"]) for row in rows]
    assert len(set(keys)) == len(keys), "a row is there twice"
    states: dict[str, str] = {}
    for pack in {record["pack"] for record in records if record["pack"]}:
        there = sorted(checkpoints.glob(f"{FOLDER}/{pack}/0*/{MANIFEST}"))
        for path in [*(each for each in there[:-1] if int(each.parent.name) in stay), *there[-1:]]:
            saved = json.loads((path.parent / STATE).read_text())["dict"]
            members = json.loads((path.parent / MEMBERS).read_text())
            # of a pack that was cut, nobody says whose places are left
            named = zip(members, saved["states"], strict=True) if len(members) == len(saved["states"]) else ()
            states |= {f"{member}@{saved['num_updates']}": state for member, state in named}
    kept = [{k: v for k, v in row.items() if k not in NOT_COMPARED and v is not None} for row in rows]
    return {each["member"]: each["status"] for each in records}, sorted(map(repr, kept)), states


def stay_of(spec: Spec) -> Collection[int]:
    """After which updates checkpoints stay."""
    return kept_at(spec["steps"], spec["evaluations"], spec.get("keep_checkpoints", 1))


class Crashes(RuleBasedStateMachine):
    """One sweep, and what happens to it."""

    zygote: Zygote
    parent: str
    said: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="crash-"))
        self.run, self.number, self.whole = self.home / "run", 0, False

    @initialize(spec=sweeps(), apart=st.booleans())
    def ask(self, spec: Spec, apart: bool) -> None:
        self.spec = spec | ({"parents": [self.parent]} if "parents" in spec else {})
        self.steps: dict[str, int] = {}
        self.hurt = False  # in its checkpoints
        self.storage = self.home / "storage" if apart else None
        self.expected = undisturbed(json.dumps(self.spec, sort_keys=True))

    def driver(self, at: dict[str, Any] | None = None, **task: Any) -> Ended:
        """Have the sweep begin, or go on: until it ends, or what is to happen `at` some write has happened."""
        if self.whole:  # as the last line said
            task |= {"do": "sweep", "spec": self.full_spec}
        elif self.run.exists() and any(self.run.iterdir()):
            task |= {"do": "sweep", "resume": str(self.run)} | self.steps
        elif self.storage and (self.storage / "run.json").exists():
            task |= {
                "do": "sweep",
                "resume": self.storage.as_uri(),
            } | self.steps  # which brings it to runs/ of its folder
            self.run = self.home / "runs" / "storage"
        else:
            task |= {"do": "sweep", "spec": self.full_spec}
        return self.told(self.zygote.run(cwd=str(self.home), at=self.events(at), **task))

    @property
    def full_spec(self) -> Spec:
        return self.spec | {"out": str(self.run)} | ({"storage": self.storage.as_uri()} if self.storage else {})

    def events(self, at: dict[str, Any] | None) -> dict[str, str]:
        self.number += 1
        return {} if at is None else watched(self.home, self.journal, **at)

    @property
    def journal(self) -> Path:
        """Of the last driver."""
        return self.home.with_name(f"{self.home.name}.{self.number}")

    def told(self, ended: Ended) -> Ended:
        """No end is without a word."""
        assert ended.code in (None, 0, 1, 2, 130, -signal.SIGKILL), ended
        assert "Traceback" not in ended.said, ended.said
        assert (ended.code == 2) == bool(ended.line), ended
        self.whole = "give the whole command" in ended.line
        if ended.line:
            type(self).said[ended.line.replace(str(self.home), "HOME")] += 1
        self.readable()
        return ended

    def readable(self) -> None:
        if self.run.exists():
            status = self.zygote.run(do="status", run=str(self.run))
            assert status.code in (0, 2), status

    @rule(write=WRITES)
    def killed(self, write: int) -> None:
        self.driver({"die_at": write})

    @rule(write=WRITES, loss=st.integers(-len(LOSSES), 9))
    def without_power(self, write: int, loss: int) -> None:
        """What was not synchronised is lost, or a part of it."""
        disk = Disk(self.home)
        self.driver({"die_at": write})
        for operation in read_journal(self.journal):
            disk.apply(operation)
        left = self.home.with_name(f"{self.home.name}.left")
        disk.crash(LOSSES[loss] if loss < 0 else by_chance(loss), left)
        shutil.rmtree(self.home)
        left.rename(self.home)
        self.readable()

    @rule(write=WRITES, which=st.sampled_from(sorted(ENDS)))
    def stopped(self, write: int, which: int) -> None:
        self.driver({"signal_at": write, "signal": which})

    @rule(write=WRITES, lasts=st.sampled_from([0, 1, 3]))
    def without_room(self, write: int, lasts: int) -> None:
        self.driver({"full_at": write, "full_for": lasts})

    @rule(steps=st.sets(st.integers(1, 8), min_size=1, max_size=3))
    def failing(self, steps: set[int]) -> None:
        self.driver(fails=sorted(steps))

    @precondition(lambda self: not (self.steps or "search" in self.spec))
    @rule(write=WRITES)
    def longer(self, write: int) -> None:
        """All of it is to be trained for twice as long, from now on."""
        self.spec = self.spec | {name: 2 * self.spec[name] for name in LENGTH}
        self.steps = {"steps": self.spec["steps"]}
        self.expected = undisturbed(json.dumps(self.spec, sort_keys=True))
        self.driver({"die_at": write})

    @rule()
    def moved(self) -> None:
        if self.run.exists():
            self.run = self.run.rename(self.home / f"moved-{self.number}")
            self.number += 1

    @rule(write=WRITES)
    def two_drivers(self, write: int) -> None:
        first = self.driver({"signal_at": write, "signal": signal.SIGSTOP})
        if first.code is None:
            if self.run.exists():
                first_is_in = is_locked(self.run / INDEX)  # or it was stopped on its way, and the second goes before
                second = self.zygote.run(do="sweep", resume=str(self.run))
                assert (second.code == 2) == first_is_in, second
            self.told(self.zygote.go_on(first))

    @rule(
        name=st.sampled_from([HISTORIES, INDEX, "run.json", "checkpoints/*/0*/**/*"]),
        how=st.sampled_from(["gone", "empty", "half", "noise"]),
        seed=st.integers(0, 9),
    )
    def damaged(self, name: str, how: str, seed: int) -> None:
        """A file is not what it was."""
        draw = random.Random(seed)  # which file and where depends on what is there, which Hypothesis must not see
        found = [
            path for root in (self.run, self.storage) if root for path in sorted(root.glob(name)) if path.is_file()
        ]
        if not found:
            return
        path = draw.choice(found)
        self.hurt |= name not in (HISTORIES, INDEX, "run.json")
        content = path.read_bytes()
        match how:
            case "gone":
                path.unlink()
            case "empty":
                path.write_bytes(b"")
            case "half":
                path.write_bytes(content[: len(content) // 2])
            case "noise":
                place = draw.randrange(max(1, len(content)))
                path.write_bytes(content[:place] + draw.randbytes(20) + content[place + 20 :])

    @precondition(lambda self: self.storage is not None)
    @rule()
    def headless(self) -> None:
        """The machine with the run directory is lost."""
        if self.storage and (self.storage / "run.json").exists():
            shutil.rmtree(self.run, ignore_errors=True)

    @precondition(lambda self: self.storage is not None)
    @rule(write=WRITES)
    def fetched(self, write: int) -> None:
        """Results are brought home while a driver is at work, and nobody fetches into the run itself."""
        first = self.driver({"signal_at": write, "signal": signal.SIGSTOP})
        self.told(self.zygote.run(do="fetch", source=str(self.storage), out=str(self.home / "fetched")))
        if self.run.exists():
            own = self.zygote.run(do="fetch", source=str(self.storage), out=str(self.run))
            assert own.code == 2, own
        if first.code is None:
            self.told(self.zygote.go_on(first))

    def teardown(self) -> None:
        if hasattr(self, "spec"):
            self.finish()
        for path in self.home.parent.glob(f"{self.home.name}*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

    def finish(self) -> None:
        """Go on until it is over, and compare."""
        for _ in range(3):
            ended = self.driver()
            if ended.code == 0:
                break
        assert ended.code == 0, ended
        checkpoints = self.storage or self.run
        statuses, rows, states = outcome(self.run, checkpoints, () if self.hurt else stay_of(self.spec))
        assert statuses == self.expected[0]
        assert rows == self.expected[1]
        expected = self.expected[2]
        if self.hurt:  # of what stayed, nothing brings back what was taken
            expected = {name: expected[name] for name in states if name in expected}
            assert {name.partition("@")[0] for name in expected} == {
                each.partition("@")[0] for each in self.expected[2]
            }
        assert states == expected


@cache
def undisturbed(spec: str) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """What comes of a sweep that is left alone."""
    with tempfile.TemporaryDirectory() as home:
        asked = json.loads(spec)
        ended = Crashes.zygote.run(do="sweep", spec=asked | {"out": f"{home}/run"})
        assert ended.code == 0, ended
        return outcome(Path(home) / "run", Path(home) / "run", stay_of(asked))


@pytest.mark.crash
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_to_a_sweep_it_ends_as_if_nothing_had(zygote: Zygote, part: int) -> None:
    """The same sequences at every call, unless DR3_RAY_CRASHES says how many others there are to be."""
    Crashes.zygote = zygote
    machine = type(f"Crashes{part}", (Crashes,), {})
    asked = settings(
        max_examples=int(CRASHES or 200) // PARTS, stateful_step_count=EVENTS, deadline=None, print_blob=True,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False, database=None,
    )  # fmt: skip
    run_state_machine_as_test(machine if CRASHES else fixed(part)(machine), settings=asked)
