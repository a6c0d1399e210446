"""CSV, Parquet and .npz on the command line: as the file says, by a guess that is printed, or not at all."""

import numpy as np
import pandas as pd
import pytest

from dr3_ray.data import load_dataset

LENGTHS = (3, 1, 5)


def frame_of(rows):
    columns = {"ep": np.repeat(range(3), LENGTHS), "t": np.concatenate([*map(np.arange, LENGTHS)])}
    for name, key in (("obs", "observations"), ("next_obs", "next_observations"), ("act", "actions")):
        columns |= {f"{name}_{index}": rows[key][:, index] for index in range(rows[key].shape[1])}
    ends = {"terminated": rows["terminateds"], "truncated": rows["truncateds"]}
    return pd.DataFrame(columns | {"reward": rows["rewards"]} | ends)


def save(path, rows):
    if path.suffix == ".npz":
        np.savez(path, **rows)
    elif path.suffix == ".csv":
        frame_of(rows).to_csv(path, index=False)
    else:
        frame_of(rows).to_parquet(path)


@pytest.mark.parametrize("name", ["mine.npz", "mine.csv", "mine.parquet"])
def test_a_table_by_its_names(tmp_path, make_rows, assert_episodes, cli, name):
    rows, episodes = make_rows(LENGTHS)
    source, out = tmp_path / name, tmp_path / "out"
    save(source, rows)
    described = cli("import", source, "--dry-run", COLUMNS="150")
    assert described.returncode == 0 and not out.exists(), described
    first = "observations" if name == "mine.npz" else "obs_0, obs_1, obs_2"
    for line in ("observations", first, "rows", "9", "nothing was written: leave out --dry-run and give --out DIR"):
        assert line in described.stdout, line
    done = cli("import", source, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"9 steps of 3 episodes written to {out}; peak memory ")
    manifest = assert_episodes(out, episodes).manifest
    assert manifest.name == "mine" and manifest.provenance.source == str(source)
    assert manifest.provenance.command.startswith("dr3-ray data import")


def test_a_table_by_named_columns(tmp_path, make_rows, assert_episodes, cli, refused):
    rows, episodes = make_rows(LENGTHS)
    frame = frame_of(rows).rename(columns={"reward": "gain", "act_0": "left", "act_1": "right"})
    frame["obs_0"] = frame["obs_0"].round()
    frame["next_obs_0"] = frame["next_obs_0"].round()
    frame[: len(frame)].to_csv(tmp_path / "odd.csv", index=False)
    out = tmp_path / "out"
    assert "no column looks like action: there are ep, t, obs_0" in refused(
        "import", tmp_path / "odd.csv", "--out", out
    )
    done = cli("import", tmp_path / "odd.csv", "--out", out, "--columns", "reward=gain,action=left+right")
    assert (done.returncode, done.stderr) == (0, "")
    for observations, *_ in episodes:
        observations[:, 0] = observations[:, 0].round()
    assert_episodes(out, episodes)


def test_warnings_have_names_and_strict_makes_errors_of_them(tmp_path, make_rows, cli, refused):
    rows, _ = make_rows(LENGTHS)
    rows["truncateds"] = rows["terminateds"] | rows["truncateds"]
    rows["done"] = rows.pop("terminateds")
    np.savez(tmp_path / "mine.npz", **rows)
    result = cli("import", tmp_path / "mine.npz", "--out", tmp_path / "out")
    lines = result.stderr.splitlines()
    assert result.returncode == 0 and len(lines) == 2
    assert lines[0].startswith("warning: done: the column done became `terminated`: if it marks timeouts too")
    assert lines[1].startswith(
        "warning: both-ends: 2 episodes are terminated and truncated in one step (first episode 0"
    )
    assert load_dataset(tmp_path / "out").manifest.provenance.notes == tuple(line[9:] for line in lines)
    message = refused("import", tmp_path / "mine.npz", "--out", tmp_path / "none", "--strict")
    assert "done: the column" in message and "both-ends: 2" in message and "import without --strict" in message
    assert not (tmp_path / "none").exists()


def test_pickles_are_refused(tmp_path, make_rows, assert_episodes, cli, refused):
    rows, episodes = make_rows(LENGTHS)
    objects = np.empty(9, object)
    objects[:] = list(rows["observations"])
    np.savez(tmp_path / "mine.npz", **rows | {"observations": objects})
    message = refused("import", tmp_path / "mine.npz", "--out", tmp_path / "out")
    assert "is pickled, which can run code when it is read: give --trust if you trust its author" in message
    assert cli("import", tmp_path / "mine.npz", "--out", tmp_path / "out", "--trust").returncode == 0
    assert_episodes(tmp_path / "out", episodes)


FILES = {
    "cut.npz": (lambda content: content[:-40], "is not a readable .npz file"),
    "cut.parquet": (lambda content: content[:-40], "is not a readable parquet table"),
    "other.npz": (lambda content: b"PAR1", "is not a readable .npz file"),
    "other.parquet": (lambda content: b"<html></html>", "is not a readable parquet table"),
    "words.csv": (
        lambda content: content.replace(b"\n0,1,", b"\n0,one,"),
        "t holds string, such as '0', and timesteps are numbers",
    ),
    "short.csv": (lambda content: content + b"\n1,2,3\n", "table"),
    "empty.csv": (lambda content: b"", "is not a readable csv table"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_another_content(tmp_path, make_rows, refused, name):
    spoil, says = FILES[name]
    save(tmp_path / name, make_rows(LENGTHS)[0])
    (tmp_path / name).write_bytes(spoil((tmp_path / name).read_bytes()))
    message = refused("import", tmp_path / name, "--out", tmp_path / "out")
    assert says in message, message
    assert {path.name for path in tmp_path.iterdir()} <= {name, "minari"}


def test_options_that_a_source_does_not_read(tmp_path, refused):
    message = refused("import", "minari:a/b-v0", "--out", tmp_path / "out", "--columns", "reward=r")
    assert "--columns says nothing to a Minari data set: leave it out" in message
    (tmp_path / "x.txt").write_text("x")
    assert "cannot tell what" in refused("import", tmp_path / "x.txt", "--out", tmp_path / "out")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path, cli):
    """The peak of two files, both larger than a batch, one with four times the rows."""
    peaks = []
    for rows in (40_000, 160_000):
        ends = np.arange(rows) % 1000 == 999
        noise = np.random.default_rng(0).normal(size=(rows, 60))
        arrays = {"observations": noise, "actions": np.tanh(noise[:, :2]), "rewards": noise[:, 0], "truncateds": ends}
        np.savez_compressed(tmp_path / f"{rows}.npz", **arrays)
        done = cli("import", tmp_path / f"{rows}.npz", "--out", tmp_path / f"out-{rows}")
        peaks.append(int(done.stdout.split("peak memory ")[1].split(" ")[0].replace(",", "")))
    # the file has 57 MiB more; up to 256 MiB of a shard are filled as rows come
    sizes = [
        sum(entry.bytes for entry in load_dataset(tmp_path / f"out-{rows}").manifest.files)
        for rows in (40_000, 160_000)
    ]
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 2**20 + 25, peaks


def test_check_runs_on_an_existing_set(tmp_path, make_rows, cli, refused):
    rows, _ = make_rows((60, 60), seed=1)
    smooth = np.cumsum(rows["observations"] * 0.01, 0)
    rows["observations"], rows["next_observations"] = smooth, np.append(smooth[1:], smooth[-1:], 0)
    rows["truncateds"][59] = rows["terminateds"][59] = False
    np.savez(tmp_path / "good.npz", **rows)
    assert cli("import", tmp_path / "good.npz", "--out", tmp_path / "good").stderr == ""
    assert cli("check", tmp_path / "good").stdout == "ok: nothing was found in 120 rows of 1 episodes\n"

    smooth[60:] += 5  # an unmarked end
    smooth[100:103], rows["actions"][100:103] = 0, 0
    rows["rewards"][:] = 2
    rows["next_observations"] = np.append(smooth[1:], smooth[-1:], 0)
    np.savez(tmp_path / "bad.npz", **rows)
    imported = cli("import", tmp_path / "bad.npz", "--out", tmp_path / "bad")
    checked = cli("check", tmp_path / "bad")
    assert imported.stderr == checked.stderr and checked.returncode == 0
    names = [line.split(": ")[1] for line in checked.stderr.splitlines()]
    assert names == ["jumps", "zero-rows", "constant-reward"]
    assert "3 steps move the observation more than 20 times" in checked.stderr  # to 60, and there and back at 100
    assert "(first episode 0, step 59)" in checked.stderr and "every reward is 2" in checked.stderr
    assert "has 3 warnings: mend the source" in cli("check", tmp_path / "bad", "--strict").stderr


def test_episodes_that_repeat(tmp_path, make_rows, cli):
    rows, _ = make_rows(LENGTHS)
    np.savez(tmp_path / "twice.npz", **{name: np.concatenate([values, values]) for name, values in rows.items()})
    result = cli("import", tmp_path / "twice.npz", "--out", tmp_path / "out")
    assert result.stderr == "warning: duplicate-episodes: 3 episodes repeat an earlier one (first episode 3, step 0)\n"
