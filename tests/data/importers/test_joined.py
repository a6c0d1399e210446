"""Several sources become one data set, where their spaces agree."""

import minari
import numpy as np
import pytest

from dr3_ray.data import import_minari, load_dataset
from dr3_ray.data.importers import open_sources
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError
from tests.data.importers.conftest import write_minari

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def make_minari(minari_home, make_rows):
    def make(name, lengths, seed, high=1.0):
        _, episodes = make_rows(lengths, seed=seed)
        write_minari(name, episodes, high, author=f"who made {name}")
        return episodes

    return make


def test_several_minari_ids(tmp_path, make_minari, cli, assert_episodes):
    first, second = make_minari("some/a-v0", (3, 1, 4), 0), make_minari("some/b-v0", (2, 5), 1)
    result = cli("import", "minari:some/a-v0", "minari:some/b-v0", "--out", tmp_path / "both")
    assert result.returncode == 0, result.stderr
    dataset = assert_episodes(tmp_path / "both", [*first, *second])
    assert dataset.episodes["episode_ids"].tolist() == [0, 1, 2, 3, 4]
    provenance = dataset.manifest.provenance
    assert dataset.manifest.name == "some/a-v0+some/b-v0" and provenance.source == "minari:some/a-v0 minari:some/b-v0"
    assert provenance.details["some/b-v0, author"] == "who made some/b-v0"
    import_minari(["some/a-v0", minari.load_dataset("some/b-v0")], tmp_path / "again")
    assert load_dataset(tmp_path / "again").fingerprint == dataset.fingerprint
    import_source(lambda: open_sources(["minari:some/a-v0", "minari:some/b-v0"]), tmp_path / "small", rows_per_shard=4)
    assert_episodes(tmp_path / "small", [*first, *second])
    assert load_dataset(tmp_path / "small").episodes["episode_ids"].tolist() == [0, 1, 2, 3, 4]


def test_an_episode_that_stands_in_two_sources_is_noted(tmp_path, make_minari):
    make_minari("some/a-v0", (3, 4), 0)
    make_minari("some/b-v0", (3, 4), 0)
    notes = import_minari(["some/a-v0", "some/b-v0"], tmp_path / "out").provenance.notes
    assert notes == ("duplicate-episodes: 2 episodes repeat an earlier one (first episode 2, step 0)",)


def test_one_line_where_spaces_differ_or_a_source_stands_twice(tmp_path, make_minari, refused):
    make_minari("some/a-v0", (3,), 0)
    make_minari("some/b-v0", (3,), 1, high=2.0)
    line = refused("import", "minari:some/a-v0", "minari:some/b-v0", "--out", tmp_path / "out")
    assert "some/b-v0 has the action space Box(-1.0, 2.0, (2,), float64), and some/a-v0 has Box(-1.0, 1.0" in line
    line = refused("import", "minari:some/a-v0", "minari:some/a-v0", "--out", tmp_path / "out")
    assert "minari:some/a-v0 is named twice: name each source once" in line
    assert not (tmp_path / "out").exists()


def test_tables_in_files_one_after_the_other(tmp_path, make_rows, assert_episodes):
    names, wanted = [], []
    for seed in range(2):
        rows, episodes = make_rows(seed=seed)
        np.savez(tmp_path / f"{seed}.npz", **rows)
        names.append(str(tmp_path / f"{seed}.npz"))
        wanted += episodes
    import_source(lambda: open_sources(names), tmp_path / "out")
    assert_episodes(tmp_path / "out", wanted)


def test_no_source(tmp_path):
    with pytest.raises(UserError, match="there is no source: name one"):
        import_minari([], tmp_path / "out")
