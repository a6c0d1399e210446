"""What a search asks, what it is told, and what is left of it after an interruption; nothing is trained here."""

import math

import optuna
import pytest
from optuna.trial import TrialState

from dr3_ray.errors import UserError
from dr3_ray.runs.directory import STUDIES
from dr3_ray.runs.histories import HISTORIES
from dr3_ray.runs.index import Index
from dr3_ray.sweep.search.proposals import Proposals
from dr3_ray.sweep.search.scores import MemberScores
from dr3_ray.sweep.search.studies import foreseen, open_studies
from dr3_ray.sweep.spec.problems import problems
from dr3_ray.sweep.spec.spec import SweepSpec

RANGES = {
    "coefficients": {"log_uniform": [1e-3, 1]},
    "axes": {
        "critic_lr": {"log_uniform": [1e-5, 1e-2]},
        "both": {"zip": {"batch_size": [16, 32], "n_step": [1, 3]}},
        "cql_alpha": {"grid": [0.1, 0.5], "when": {"algorithm": "DR3-CQL", "dr3_coeff": {"min": 0.03}}},
    },
}


@pytest.fixture
def asked(cartpole, tmp_path):
    """A specification with a search."""

    def make(trials: int = 6, method: str = "tpe", points=(), **values) -> SweepSpec:
        search = {"method": method, "trials": trials, "points": points}
        plain = {"datasets": [cartpole], "seeds": 2, "steps": 40, "evaluations": 2, "environment": "none"}
        return SweepSpec(**{**plain, "objective": "q_mean", "search": search, "out": tmp_path, **values})

    return make


class Trained:
    """A search, and the making up of results for what it proposes."""

    def __init__(self, spec: SweepSpec, run: str = "0123456789") -> None:
        (self.searcher,) = open_studies(spec, problems(spec), run)
        self.spec, self.said = spec, []
        self.scores = MemberScores(spec.objective)
        trials = spec.search.trials
        self.proposals = Proposals(self.searcher.problem, self.searcher, trials, self.scores, self.said.append)
        for trial, options in self.searcher.resume():
            self.proposals.know(options, trial)

    def end(self, members, status="finished", **measured) -> None:
        measured = {"q_mean": 1.0, "td_error": 1.0} | measured
        for member in members:
            self.scores.row(member, self.spec.steps, measured)
        self.scores.close(members, status)
        self.proposals.tell(members)

    @property
    def study(self) -> optuna.Study:
        return self.searcher._study

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.trials]


def test_every_axis_is_a_dimension(asked):
    trained = Trained(asked(trials=12, **RANGES))
    for _ in range(12):
        trained.end(trained.proposals.next())
    assert trained.proposals.next() is None
    configs = list(trained.proposals.members.values())
    assert len(configs) == 24
    assert {(config["batch_size"], config["n_step"]) for config in configs} == {(16, 1), (32, 3)}
    assert {config["seed"] for config in configs} == {0, 1}
    for config in configs:
        assert float(f"{config['critic_lr']:.4g}") == config["critic_lr"]
        assert 1e-3 <= config["dr3_coeff"] <= 1
    for trial in trained.study.trials:
        assert ("cql_alpha" in trial.params) == (trial.user_attrs["options"]["dr3_coeff"] >= 0.03)
        assert trial.params["both"] in ("batch_size=16, n_step=1", "batch_size=32, n_step=3")
    assert {"cql_alpha" in trial.params for trial in trained.study.trials} == {True, False}


@pytest.mark.spread(2)
@pytest.mark.parametrize("method", ["random", "gp", "tpe", "nsga2"])
def test_every_method_takes_points_and_lost_members(asked, method):
    points = [{"dr3_coeff": 0}, {"dr3_coeff": 0.5, "critic_lr": 1e-4}]
    two = {"objective": ["q_mean", "td_error"]} if method == "nsga2" else {}
    trained = Trained(asked(trials=16, method=method, points=points, **RANGES, **two))
    for number in range(16):
        members = trained.proposals.next()
        config = next(iter(members.values()))
        if number < 2:
            assert {name: config[name] for name in points[number]} == points[number]
        measured = {"q_mean": -abs(math.log(config["critic_lr"] / 1e-3))}
        trained.end(members, "diverged" if number == 5 else "finished", **measured)
    assert trained.proposals.next() is None
    states = ["COMPLETE"] * len(trained.states)  # more than asked for, where NSGA-II repeated itself
    states[5] = "PRUNED"
    if method in ("gp", "nsga2"):
        states[0] = "PRUNED"  # outside of the space
        assert set(trained.study.trials[0].user_attrs["scores"]) == {each.metric for each in trained.spec.objective}
    assert trained.states == states
    assert len(trained.study.best_trials) >= 1


def test_the_answer_is_that_of_all_seeds(asked):
    trained = Trained(asked(trials=5, **RANGES))
    first, second, third, fourth, fifth = (list(trained.proposals.next()) for _ in range(5))
    trained.end(first[:1], q_mean=1.0)
    assert trained.states[0] == "RUNNING"
    trained.end(first[1:], q_mean=2.0)
    trained.end(second[:1])
    trained.end(second[1:], "diverged")
    trained.end(third[:1])
    trained.end(third[1:], "failed")
    trained.end(fourth[:1], "failed")
    trained.end(fourth[1:], "diverged")
    trained.end(fifth, q_mean=math.nan)
    assert trained.states == ["COMPLETE", "PRUNED", "FAIL", "PRUNED", "PRUNED"]
    assert trained.study.trials[0].values == [1.5]


def test_what_is_known_or_excluded_is_not_trained(asked):
    """Six coefficients, of which one is excluded and one not possible: four configurations, however many are wanted."""
    trained = Trained(
        asked(trials=20, method="random", coefficients=[-1, 0, 0.1, 0.2, 0.3, 0.4], exclude=[{"dr3_coeff": 0.4}])
    )
    found = []
    while members := trained.proposals.next():
        found += [config["dr3_coeff"] for config in members.values()]
        trained.end(members, q_mean=found[-1])
    assert sorted(found) == [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert "ends with 4 configurations: 50 proposals in a row gave nothing to train" in trained.said[0]
    for trial in trained.study.trials:
        coefficient = trial.params["dr3_coeff"]
        assert trial.state == (TrialState.PRUNED if coefficient in (-1, 0.4) else TrialState.COMPLETE)
        assert trial.values == (None if coefficient in (-1, 0.4) else [coefficient])


def test_a_duplicate_of_what_is_running_waits_for_its_result(asked):
    trained = Trained(asked(trials=3, method="random", coefficients=[0.1, 0.2, 0.3]))
    members = [trained.proposals.next() for _ in range(3)]
    assert len(trained.states) >= 3
    for number, each in enumerate(members):
        trained.end(each, q_mean=float(number))
    assert set(trained.states) == {"COMPLETE"}
    assert len({(trial.params["dr3_coeff"], trial.value) for trial in trained.study.trials}) == 3


def test_a_study_goes_on_where_it_was_left(asked):
    """Trained, asked alone, and interrupted while it was asked; a failed one is told again."""
    spec = asked(trials=5, points=[{"dr3_coeff": 0}], **RANGES)
    before = Trained(spec)
    done, failed, open_ = (before.proposals.next() for _ in range(3))
    before.end(done)
    before.end(failed, "failed")
    trial = before.study.ask()
    trial.suggest_float("critic_lr", 1e-5, 1e-2, log=True)

    after = Trained(spec)
    assert list(after.proposals.members)[:6] == [*done, *failed, *open_]
    assert after.proposals.left == 1
    half = list(after.proposals.members.values())[6]
    assert half["critic_lr"] == pytest.approx(trial.params["critic_lr"], rel=1e-3)
    assert after.states == ["COMPLETE", "FAIL", "RUNNING", "RUNNING", "RUNNING"]
    after.end(list(after.proposals.members)[2:])
    last = after.proposals.next()
    assert after.proposals.next() is None
    after.end(last)
    assert after.states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert after.study.trials[4].params == after.study.trials[1].params
    more = Trained(asked(trials=7, points=[{"dr3_coeff": 0}, {"dr3_coeff": 0.1}], **RANGES))
    assert next(iter(more.proposals.next().values()))["dr3_coeff"] == 0.1
    assert more.proposals.left == 1


@pytest.mark.slow
def test_the_same_study_proposes_the_same_whether_or_not_it_was_interrupted(asked, tmp_path):
    def options(spec: SweepSpec, interrupted: bool) -> list[dict]:
        trained = Trained(spec)
        for number in range(12):
            if interrupted:
                trained = Trained(spec)
            trained.end(trained.proposals.next(), q_mean=float(number % 5))
        return [trial.user_attrs["options"] for trial in trained.study.trials]

    once, often = (
        options(asked(trials=12, out=tmp_path / name, **RANGES), name == "often")
        for name in ("once", "often")
        if not (tmp_path / name).mkdir()
    )
    assert once == often


def test_the_database_is_plain_optuna(asked, tmp_path):
    spec = asked(trials=2, **RANGES)
    trained = Trained(spec)
    trained.end(trained.proposals.next(), q_mean=7.0)
    study = optuna.load_study(study_name="DR3-CQL on cartpole (01234567)", storage=f"sqlite:///{tmp_path / STUDIES}")
    assert study.best_value == 7.0
    assert study.metric_names == ["q_mean"]
    with pytest.raises(UserError, match=r"begun with other seeds, steps, whose results do not compare"):
        Trained(asked(trials=2, **RANGES, steps=80, seeds=3))


def test_a_journal_file_will_do(asked, tmp_path):
    spec = asked(trials=2, **RANGES)
    spec = spec.model_copy(update={"search": spec.search.model_copy(update={"study": str(tmp_path / "x.journal")})})
    Trained(spec).proposals.next()
    again = Trained(spec)
    assert again.proposals.left == 1
    assert again.states == ["RUNNING"]


@pytest.mark.parametrize("url", ["nonsense://x", "postgresql+psycopg://nobody@127.0.0.1:1/x", "/proc/x/y.journal"])
def test_a_database_that_cannot_be_used_is_told_in_one_line(asked, url):
    spec = asked(trials=2, **RANGES)
    spec = spec.model_copy(update={"search": spec.search.model_copy(update={"study": url})})
    with pytest.raises(UserError, match="cannot be used") as error:
        Trained(spec)
    assert "\n" not in str(error.value)


def test_what_a_search_might_train_is_foreseen(asked, tmp_path):
    spec = asked(trials=4, **RANGES)
    drawn = foreseen(spec, problems(spec), [])
    assert len(drawn) == 8
    assert foreseen(spec, problems(spec), []) == drawn
    tmp_path.joinpath("run").mkdir()
    with Index(tmp_path / "run") as index:
        index.write(list(drawn)[:2], "finished", configs=drawn)
        again = foreseen(spec, problems(spec), index.records.values())
    assert len(again) == 8
    assert list(again)[:2] == list(drawn)[:2]
    assert not (tmp_path / STUDIES).exists() and not (tmp_path / HISTORIES).exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"search": {"method": "tpe"}}, "search.trials: it is missing"),
        ({"search": {"trials": 3, "metod": "tpe"}}, "unknown key in search 'metod': did you mean 'method'?"),
        (
            {"search": {"trials": 3, "method": "grid"}},
            "search.method: it has to be 'tpe', 'random', 'gp' or 'nsga2'",
        ),
        ({"search": {"trials": 1, "points": [{}, {}]}}, "2 points are more than 1 trials"),
        ({"search": {"trials": 3, "points": [{"critic_rl": 1}]}}, "unknown axis in search.points 'critic_rl'"),
        ({"search": {"trials": 3, "points": [{"critic_lr": "much"}]}}, "critic_lr"),
        (
            {"search": {"trials": 3, "points": [{"batch_size": 64}]}},
            "no row of axes.both is like that, so give 'n_step'",
        ),
        ({"coefficients": {"uniform": [0, 1], "also": [0]}}, "coefficients: a search knows no `also`"),
        ({"budget": 3}, "a search has trials instead of a budget"),
        ({"objective": "episode_return_mean"}, "needs rollouts"),
        ({"exclude": [{"dr3_coeff": {"min": 0}}]}, "the search for DR3-CQL on cartpole ends with 0 configurations"),
    ],
)
def test_mistakes_are_told_before_anything_runs(asked, tmp_path, values, message):
    with pytest.raises(UserError) as error:
        spec = asked(**RANGES | values)
        foreseen(spec, problems(spec), [])
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
