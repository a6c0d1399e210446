"""Mixtures by name: what a name says, what rows a mixture has beside its parts, and how batches are dealt to them."""

import json
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.data import as_ray_dataset, export_dataset, from_arrays, load_dataset, verify
from dr3_ray.data.checks import check_dataset
from dr3_ray.data.labels import dataset_label
from dr3_ray.data.loading import largest_reward
from dr3_ray.data.mixing import Mixing, largest_remainders, spread
from dr3_ray.data.mixture import Mixture
from dr3_ray.data.mixture_names import MixtureName, Part, absolute_name, names_in
from dr3_ray.data.n_step import gather_n_step
from dr3_ray.data.sampler import CountingSampler, Sampler
from dr3_ray.errors import UserError
from dr3_ray.training.normalization import observation_statistics
from dr3_ray.types import Noise

WEIGHTS = st.decimals("0.001", 1000, places=3).map(Decimal.normalize)
NAMES = st.sampled_from(["embedded:pong", "/data/a b", "s3://b/x?endpoint_override=h:1", "/d?take=best:0.5", "/e=1"])
SHARES = st.lists(st.integers(1, 1000), min_size=1, max_size=6).map(lambda all: [Fraction(n, sum(all)) for n in all])


@st.composite
def names(draw):
    """Mixtures of several data sets, some with two phases or tasks."""
    sources = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    since, tasks, pad = draw(st.none() | st.integers(1, 10**6)), draw(st.booleans()), draw(st.booleans())
    parts = [
        Part(source, draw(WEIGHTS), draw(WEIGHTS) if since else None, f"t{number}" if tasks else None)
        for number, source in enumerate(sources)
    ]
    if since:  # no second weights that are the first ones
        parts[-1] = parts[-1]._replace(then=parts[-1].weight * 7 + 1, weight=parts[-1].weight)
        parts[0] = parts[0]._replace(then=parts[0].weight)
    return MixtureName.of(parts, since, pad)


@given(names(), st.integers(2, 9))
def test_a_name_is_read_back_and_weights_count_by_their_shares(name, factor):
    assert MixtureName.parse(str(name)) == name and absolute_name(str(name)) == str(name)
    assert names_in(str(name)) == tuple(part.data for part in name.parts)
    more = [part._replace(weight=part.weight * factor, then=part.then and part.then * factor) for part in name.parts]
    assert MixtureName.of(more, name.since, name.pad).phases == name.phases
    assert all(sum(phase) == 1 for phase in name.phases) and len(name.phases) == 1 + bool(name.since)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mix:", "a mixture is written mix:A=0.9,B=0.1"),
        ("mix:A,B", "each data set with its weight"),
        ("mix:A=0.9,B=-1", "each data set with its weight"),
        ("mix:A=0.9,", "a mixture is written"),
        ("mix:A=1,mix:B=1", "has no other one in it"),
        ("mix:A=1,A=2", "A is named twice"),
        ("mix:A=1,B=0", "B has no weight: leave it out"),
        ("mix:A=1:0,B=0:1", "second weights hold from an update on"),
        ("mix:A=1,B=1,since=5", "second weights hold from an update on"),
        ("mix:A=1:1,B=1:1,since=5", "the second weights are the first ones"),
        ("mix:A=1:0,B=0:1,since=0", "a number from 1 on"),
        ("mix:A=1:2,since=5", "weights of one data set change nothing"),
        ("mix:A=1,pad=true", "one data set has one space: leave out `pad`"),
        ("mix:A=1/x,B=1", "name each part's, two at least, or none"),
        ("mix:A=1/x,B=1/x", "name each part's, two at least, or none"),
        ("mix:A=1,s3://key:very-secret@b/c=1", "takes no URI with keys in it"),
    ],
)
def test_what_a_name_may_not_say(name, why):
    with pytest.raises(UserError, match=why) as refused:
        load_dataset(name)
    assert "\n" not in str(refused.value) and "very-secret" not in str(refused.value)


@given(SHARES, st.integers(1, 4096))
def test_counts_are_the_shares_to_one_row(shares, batch):
    counts = largest_remainders(shares, batch)
    assert sum(counts) == batch
    assert all(abs(count - share * batch) < 1 for count, share in zip(counts, shares, strict=True))
    rest = [(count - share * batch, number) for number, (count, share) in enumerate(zip(counts, shares, strict=True))]
    more, fewer = [each for each in rest if each[0] > 0], [each for each in rest if each[0] < 0]
    assert not more or not fewer or max(more)[0] - min(fewer)[0] <= 1  # the largest remainders got the rows
    if len(shares) == 2 and shares[0] * batch % 1 <= Fraction(1, 2):
        assert counts[0] == shares[0] * batch // 1  # PTR: floor(w·B), and the rest


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any))
def test_a_part_is_spread_over_the_batch(counts):
    order = spread(counts)
    assert np.bincount(order, minlength=len(counts)).tolist() == counts
    for part, count in enumerate(counts):
        held = np.cumsum(order == part)
        even = count * np.arange(1, len(order) + 1) / len(order)
        assert np.abs(held - even).max() < len(counts) + 1


MIXING = Mixing(("a", "b", "c"), (1000, 7, 300), ((Fraction(6, 10), Fraction(3, 10), Fraction(1, 10)),))


@pytest.mark.parametrize("sampler", [Sampler, CountingSampler])
def test_every_batch_has_the_counts_of_its_member_and_all_rows_are_drawn(sampler):
    shares = (0.0, 0.5, 1.0)
    counts = [MIXING.counts(10, 0, share) for share in shares]
    assert counts == [[6, 3, 1], [3, 2, 5], [0, 0, 10]]  # of the rest two thirds and one: 3.33 and 1.67
    slots = MIXING.slots(counts)
    alone = MIXING.slots(counts[1:2])
    pack = sampler(slots.rows, 10, Noise({}, {}), [3, 4, 3])
    lone = sampler(alone.rows, 10, Noise({}, {}), [4])
    indices = pack.draws(slice(None), 2000)[0] + slots.starts
    assert torch.equal(indices[:, 1:2], lone.draws(slice(None), 2000)[0] + alone.starts)
    part = torch.bucketize(indices, torch.tensor([1000, 1007]), right=True)
    for number in range(3):
        assert ((part == number).sum(2) == torch.tensor([each[number] for each in counts])).all()
    assert indices.min() >= 0 and indices.max() < 1307
    small = indices[:, :2][part[:, :2] == 1] - 1000  # 10,000 draws of 7 rows
    share = torch.bincount(small, minlength=7) / len(small)
    assert (share - 1 / 7).abs().max() < 0.02


def test_what_a_batch_cannot_have():
    with pytest.raises(UserError, match="a batch of 3 has no row of c by its weight in the mixture"):
        MIXING.counts(3, 0)
    two = Mixing(("a", "b"), (5, 5), ((Fraction(1), Fraction(0)), (Fraction(0), Fraction(1))), since=3)
    assert [two.counts(4, phase) for phase in (0, 1)] == [[4, 0], [0, 4]]
    assert [two.phase(step) for step in (0, 2, 3, 9)] == [0, 0, 1, 1]
    assert [two.until(step, 10) for step in (0, 3)] == [3, 10] and two.until(1, 2) == 2
    assert two.counts(4, 0, 0.5) == [4, 0], "a share of the target is that of the last weights"
    with pytest.raises(UserError, match="leaves a rest to data sets without a weight"):
        two.counts(4, 1, 0.5)


@pytest.fixture
def parts(make_dataset):
    """Three data sets of equal spaces and other rows: one in several shards, one of few rows."""
    lengths = {"one": (3, 1, 5, 2), "two": (4,), "three": (2, 6, 3)}
    return {name: make_dataset(name, each, seed=seed)[0] for seed, (name, each) in enumerate(lengths.items())}


VIEWS = ["", "?take=uniform:0.5", "?take=best:0.5", "?split=train&validation=0.4"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_rows_are_those_of_the_parts(parts, data):
    tasks = data.draw(st.booleans())
    views = [data.draw(st.sampled_from(VIEWS)), "", data.draw(st.sampled_from(VIEWS[:3]))]
    sources = [f"{path}{view}" for path, view in zip(parts.values(), views, strict=True)]
    text = [f"{source}=1" + (f"/t{min(number, 1)}" if tasks else "") for number, source in enumerate(sources)]
    mixture = load_dataset(f"mix:{','.join(text)}")
    if data.draw(st.booleans()):
        mixture = pickle.loads(pickle.dumps(mixture))
    found = [load_dataset(source) for source in sources]
    assert isinstance(mixture, Mixture) and len(mixture) == sum(map(len, found))
    rows = data.draw(st.lists(st.integers(0, len(mixture) - 1), min_size=1, max_size=30))
    lengths = list(map(len, found))
    places = [(number, row) for number, length in enumerate(lengths) for row in range(length)]
    n = data.draw(st.integers(1, 4))
    columns = ("observations", "actions", "next_observations", "terminateds", "next_actions_valid")
    ours = mixture.gather(torch.tensor(rows), mixture.columns)
    followed = gather_n_step(mixture, torch.tensor(rows), columns, n)
    for place, row in enumerate(rows):
        number, local = places[row]
        theirs = found[number].gather(torch.tensor([local]), found[number].columns)
        steps = gather_n_step(found[number], torch.tensor([local]), columns, n)
        for has, wanted in ((ours, theirs), (followed, steps)):
            for name in has.keys() - {"episode_ids"}:
                value, known = has[name][place], wanted[name][0]
                if tasks and name.endswith("observations"):
                    assert value[3:].tolist() == [float(number == 0), float(number > 0)]
                    value = value[:3]
                assert torch.equal(value, known), name
    table = mixture.episodes
    assert (np.diff(table["episode_ids"]) > 0).all() and table["lengths"].sum() == len(mixture)
    assert (table["offsets"] == np.cumsum(table["lengths"]) - table["lengths"]).all()
    first = mixture.gather(torch.from_numpy(table["offsets"]), ["episode_ids"])["episode_ids"]
    assert first.tolist() == table["episode_ids"].tolist()
    assert table["returns"].tolist() == [value for each in found for value in each.episodes["returns"].tolist()]


def test_statistics_are_of_all_rows_and_the_environment_is_the_targets(parts):
    mixture = load_dataset(f"mix:{parts['one']}=9/a,{parts['two']}=1/b")
    rewards = np.concatenate([load_dataset(parts[name]).stored(0, 99)["rewards"] for name in ("one", "two")])
    found = mixture.statistics()["rewards"]
    assert [found.min, found.max] == [rewards.min(), rewards.max()]
    assert np.allclose([found.mean, found.std], [rewards.mean(), rewards.std()])
    assert largest_reward(str(mixture.name)) == max(largest_reward(str(parts[name])) for name in ("one", "two"))
    assert mixture.spaces.observation_shape == (5,) and mixture.observation_space.shape == (3,)
    breakout = load_dataset("mix:embedded:breakout-replay?split=train=1,embedded:breakout-replay=1")
    assert breakout.manifest.environment == "minatar:breakout"


def test_its_identity_is_that_of_parts_shares_and_tasks(parts):
    one, two, three = parts.values()

    def fingerprint(name):
        return load_dataset(f"mix:{name}").fingerprint

    same = fingerprint(f"{one}=0.9,{two}=0.1")
    assert fingerprint(f"{one}=9,{two}=1") == same
    pinned = f"{two}#{load_dataset(two).fingerprint}"
    assert fingerprint(f"{one}=9,{pinned}=1") == same
    others = [
        f"{one}=0.8,{two}=0.2",
        f"{two}=0.1,{one}=0.9",
        f"{one}=0.9,{three}=0.1",
        f"{one}=0.9/a,{two}=0.1/b",
        f"{one}=0.9:0.5,{two}=0.1:0.5,since=7",
        f"{one}=0.9:0.5,{two}=0.1:0.5,since=8",
        f"{one}?take=first:0.5=0.9,{two}=0.1",
    ]
    assert len({same, *map(fingerprint, others)}) == 1 + len(others)
    assert fingerprint(f"{one}=0.9/x,{two}=0.1/y") == fingerprint(others[3]), "the names of tasks change nothing"
    with pytest.raises(UserError, match="holds other data"):
        fingerprint(f"{one}=1,{two}#{'0' * 64}=1")


def test_a_mixture_of_one_is_that_data_set(parts):
    alone, plain = load_dataset(f"mix:{parts['one']}=0.3"), load_dataset(parts["one"])
    assert type(alone) is type(plain) and alone.fingerprint == plain.fingerprint and alone.path == plain.path


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("uint8", {"observation": ""}), ("bool", {"observation": ""}), ("dict", {"float32": "float32", "bool": "bool"})],
)
def test_the_task_is_a_part_of_what_is_no_vector(make_dataset, kind, seen):
    """All other parts are those of the sources, whatever reads them; images have a name beside the task."""
    lengths = {"a": (3, 1, 5, 2), "b": (4,), "c": (2, 3)}
    paths = [make_dataset(name, each, kind, seed=seed)[0] for seed, (name, each) in enumerate(lengths.items())]
    sources = [load_dataset(f"{paths[0]}?take=uniform:0.7"), *map(load_dataset, paths[1:])]
    mixture = load_dataset(f"mix:{paths[0]}?take=uniform:0.7=1/x,{paths[1]}=1/y,{paths[2]}=2/x")
    mixture = pickle.loads(pickle.dumps(mixture))
    shape = mixture.spaces.observation_shape
    assert shape["task"] == (2,) and set(seen) < set(shape) and mixture.task.tolist() == [1.0, 0.0]
    assert mixture.observation_space == sources[0].observation_space  # of the environment
    ours = mixture.gather(torch.arange(len(mixture)), mixture.columns)
    steps = gather_n_step(mixture, torch.arange(len(mixture)), ("observations", "actions", "next_observations"), 2)
    theirs = [source.gather(torch.arange(len(source)), source.columns) for source in sources]
    for column in ("observations", "next_observations"):
        for name, part in seen.items():
            known = torch.cat([each[column][part] if part else each[column] for each in theirs])
            assert torch.equal(ours[column][name], known)
        for found in (ours, steps):
            assert found[column]["task"].tolist() == [
                [float(n != 1), float(n == 1)] for n in range(3) for _ in range(len(sources[n]))
            ]
    assert torch.equal(ours["actions"], torch.cat([each["actions"] for each in theirs]))
    sizes = mixture.stored_bytes(("observations", "actions"))
    assert not [name for name in sizes if "task" in name] and sum(sizes.values()) > 0
    mean, _ = observation_statistics(mixture) if kind == "dict" else ({}, {})
    assert "task" not in mean
    if kind == "uint8":
        with pytest.raises(UserError, match="no effect on bytes"):
            observation_statistics(mixture)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_part_that_has_the_tasks_name(tmp_path):
    for name in "ab":
        seen = {"task": np.ones((6, 2)), "x": np.ones((6, 1))}
        acts, gains = np.arange(6) % 2, np.arange(6.0)
        from_arrays(observations=seen, actions=acts, rewards=gains, terminateds=np.arange(6) == 5, out=tmp_path / name)
    with pytest.raises(UserError, match="observations have a part 'task': leave out the tasks, or rename that part"):
        load_dataset(f"mix:{tmp_path / 'a'}=1/x,{tmp_path / 'b'}=1/y")


def test_spaces_have_to_be_equal(make_dataset):
    one, images = make_dataset("one")[0], [make_dataset(name, observation="uint8", seed=1)[0] for name in "ab"]
    with pytest.raises(UserError, match=r"a has the observation space Box\(0, 255, \(2, 5\), uint8\), and one has Box"):
        load_dataset(f"mix:{one}=1,{images[0]}=1")
    choices = make_dataset("choices", action="discrete")[0]
    with pytest.raises(UserError, match=r"choices has the action space Discrete\(4\), and one has Box"):
        load_dataset(f"mix:{one}=1,{choices}=1")
    assert len(load_dataset(f"mix:{images[0]}=1,{images[1]}=1")) == 22


def rows_of(folder, name, observations, actions, action_space=None, seed=0):
    """A data set of random rows with vectors of these lengths, or so many discrete actions."""
    rng = np.random.default_rng(seed)
    acts = rng.uniform(-1, 1, (17, actions)) if action_space is None else rng.integers(0, actions, 17)
    ends = np.arange(17) % 6 == 5
    from_arrays(
        observations=rng.normal(size=(17, observations)).astype(np.float32),
        actions=acts,
        rewards=rng.normal(size=17),
        terminateds=ends,
        out=folder / name,
        action_space=action_space or "box:-1,1",
    )
    return folder / name


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("tasks", [False, True])
@pytest.mark.parametrize(("first", "last"), [((3, 1), (5, 2)), ((5, 1), (3, 2)), ((4, 2), (3, 2)), ((4, 1), (4, 2))])
def test_vectors_are_padded_to_the_longest_when_asked(first, last, tasks, tmp_path):
    """Column by column those of the parts with zeros behind, then the task."""
    a, b = (rows_of(tmp_path, name, *sizes, seed=sizes[0]) for name, sizes in (("a", first), ("b", last)))
    words = ("/x", "/y") if tasks else ("", "")
    mixed = load_dataset(f"mix:{a}=1{words[0]},{b}=1{words[1]},pad=true")
    assert isinstance(mixed, Mixture) and pickle.loads(pickle.dumps(mixed)).fingerprint == mixed.fingerprint
    assert mixed.observation_space == load_dataset(b).observation_space
    widest = max(first[0], last[0])
    assert mixed.spaces.observation_shape == (widest + 2 * tasks,) and mixed.spaces.n_actions == last[1]
    columns = ("observations", "next_observations", "actions", "next_actions", "rewards")
    found, start = mixed.gather(torch.arange(len(mixed)), columns), 0
    for number, path in enumerate((a, b)):
        data = load_dataset(path)
        theirs = data.gather(torch.arange(len(data)), columns)
        task = np.tile(np.eye(2)[number], (len(data), 1))[:, : 2 * tasks]
        for name in columns:
            width = widest if "observations" in name else last[1]
            want = theirs[name].numpy()
            if name != "rewards":
                want = np.pad(want, ((0, 0), (0, width - want.shape[1])))
            if "observations" in name:
                want = np.concatenate([want, task], 1)
            assert (found[name][start : start + len(data)].numpy() == want).all(), name
        start += len(data)
    assert set(mixed.statistics()) >= {"rewards", "observations"}
    several = gather_n_step(mixed, torch.arange(len(mixed)), columns, 3)
    assert several["observations"].shape == (len(mixed), widest + 2 * tasks)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_padded_is_one_line(tmp_path, make_dataset):
    short, long = rows_of(tmp_path, "short", 3, 1), rows_of(tmp_path, "long", 5, 2)
    few, many = (rows_of(tmp_path, f"d{n}", 3, n, f"discrete:{n}") for n in (2, 4))
    choices = load_dataset(f"mix:{few}=1,{many}=1,pad=true")
    assert choices.spaces.n_actions == 4 and choices.spaces.observation_shape == (3,) and choices.task is None
    with pytest.raises(UserError, match=r"d4 has 4 actions, and the target d2 has 2: .* name the longest last"):
        load_dataset(f"mix:{many}=1,{few}=1,pad=true")
    with pytest.raises(
        UserError, match=r"d2 has the action space Discrete.*: two Box spaces are padded, or two Discrete"
    ):
        load_dataset(f"mix:{few}=1,{long}=1,pad=true")
    images = make_dataset("images", observation="uint8")[0]
    with pytest.raises(
        UserError, match=r"images: vectors are padded, and its observations are Box\(0, 255.*leave out pad"
    ):
        load_dataset(f"mix:{short}=1,{images}=1,pad=true")
    with pytest.raises(UserError, match=r"has the observation space .* mix data sets of one space"):
        load_dataset(f"mix:{short}=1,{long}=1")
    other = rows_of(tmp_path, "other", 3, 1, seed=1)
    with pytest.raises(UserError, match="other and the others have vectors of one length: leave out pad"):
        load_dataset(f"mix:{short}=1,{other}=1,pad=true")


def test_returns_have_the_discount_of_the_target(parts, tmp_path):
    steps = np.arange(40)
    about = {
        "observations": np.ones((40, 3)),
        "next_observations": np.ones((40, 3)),
        "actions": np.linspace(-1, 1, 40)[:, None],
        "rewards": steps * 1.0,
    }
    for name, gamma in (("low", 0.5), ("high", 0.9)):
        from_arrays(**about, truncateds=steps % 10 == 9, out=tmp_path / name, gamma=gamma, action_space="box:-1,1")
    mixture = load_dataset(f"mix:{tmp_path / 'high'}=1,{tmp_path / 'low'}=1")
    found = mixture.gather(torch.arange(len(mixture)), ["monte_carlo_returns"])["monte_carlo_returns"]
    assert torch.equal(*found.chunk(2)) and mixture.gamma == 0.5


def test_people_read_labels_and_what_is_in_it(parts, cli, refused, tmp_path):
    one, two, _ = parts.values()
    assert dataset_label(f"mix:{one}=9,s3://b/pong?take=best:0.1=1") == "one 90% + pong (take=best:0.1) 10%"
    assert dataset_label(f"mix:{one}=1:3,{two}=0:1,since=5000") == "one 100% to 75% + two 0% to 25% at 5,000"
    assert dataset_label(f"mix:{one}=1") == "one"
    assert dataset_label("mix:/a/x=1,/b/x=1") == "/a/x 50% + /b/x 50%"
    name = f"mix:{one}=9,{two}=1"
    told = cli("info", name).stdout
    document = json.loads(cli("info", "--json", name).stdout)
    assert (document["path"], document["rows"], document["shards"]) == (name, 15, 4)
    assert "one: 90%, of 11 rows" in told and "two: 10%, of 4 rows" in told
    assert "is a mixture, which is for training: check its parts, one by one" in refused("check", name)
    assert "verify its parts" in refused("verify", name)
    assert "export its parts" in refused("export", name, "--to", "parquet", "--out", tmp_path / "x.parquet")
    for refuses in (verify, check_dataset, as_ray_dataset, lambda each: export_dataset(each, "d4rl", tmp_path / "x")):
        with pytest.raises(UserError, match="is a mixture"):
            refuses(load_dataset(name))
